// Package imagestore keeps PNG images, by id, on any [afero.Fs], and serves
// them over HTTP.
//
// What a [Store] promises, on a filesystem that keeps its own promises:
//
//   - Whole: a reader sees the old image or the new one, never a part or a
//     mixture, and a failed Put leaves the old one in place.
//   - Durable: what has been put or deleted without an error stays so through a
//     power cut. Options.NoSync gives that up.
//   - One winner: of several writers with [IfAbsent], or with [IfMatch] of the
//     same version, exactly one succeeds. This holds within one Store; Stores
//     that share a directory, also in other processes, keep the first two
//     promises but may let two such writers win.
//   - Exact: the bytes that come out are the bytes that went in, and they were a
//     proper PNG then. What somebody else puts into the directory is served as
//     it is.
//   - Small: an upload or a download costs a fixed buffer of memory. Up to 16 MiB
//     of images of up to 64 KiB that were read last are kept in memory, on local
//     filesystems of Linux, and used only if a Stat finds them unchanged.
//
// An image is one ordinary file, {id}/image.png. Uploads are staged in .staging
// and renamed when they are complete and synced. On an object store, which an
// [ObjectFs] is, an image is one object and comes into being in one step.
//
//	store := imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), "images"), nil)
//	info, err := store.Put(ctx, "TestPost", upload)
//	if errors.Is(err, imagestore.ErrBroken) {
//		return fmt.Errorf("please send that picture again: %w", err)
//	}
//	http.Handle("/", imagestore.NewHandler(store, nil))
//
// Package client has Put, Get, Delete, Stat and All for a store at the other end
// of an HTTP connection, and cmd/imaged is a server that is ready to run.
package imagestore
