// Package imagestore keeps images by id on any [afero.Fs] and serves them over
// HTTP. It takes PNG, and other formats if [Options] allow them.
//
// A [Store] keeps these promises on a filesystem that keeps its own:
//
//   - Whole: a reader sees the whole old image or the whole new one. A failed Put
//     leaves the old one in place.
//   - Durable: when Put or Delete has returned nil, a power cut does not undo it.
//     Options.NoSync gives this up.
//   - One winner: of concurrent conditional writers, exactly one wins. This holds
//     within one Store, and on an object store across processes. Stores that share
//     a directory keep the other promises.
//   - Exact: the bytes that come out are the bytes that went in. They were valid
//     then. With Options.StripMetadata they are the same picture without metadata.
//     A file that another program put into the directory is served as it is.
//   - Small: an upload or a download takes a fixed buffer of memory. On local
//     filesystems of Linux, up to 16 MiB of images of up to 64 KiB are cached. A
//     cached image is used only if a stat finds its file unchanged.
//
// An image is one ordinary file, {id}/image. Uploads are staged in .staging,
// synced, and renamed when they are complete. A [Driver] can keep images
// elsewhere. The module github.com/ba692904/imagestore/s3 has one for object stores.
//
//	store, err := imagestore.OpenDir("images", nil)
//	if err != nil {
//		return err
//	}
//	stored, err := store.Put(ctx, "TestPost", upload)
//	if errors.Is(err, imagestore.ErrInvalidImage) {
//		return fmt.Errorf("please send that picture again: %w", err)
//	}
//	http.Handle("/", imagestore.NewHandler(store, nil))
//
// Package client has the same methods for a store behind HTTP. Package server
// and the command imaged are a server that is ready to run.
package imagestore
