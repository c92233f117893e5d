package difftest

// The reasons of several excuses.
const (
	afterEnd      = "bytes after the end, maybe private"
	betweenParts  = "other bytes between the segments, which decoders skip"
	brokenAPNG    = "an animation that is broken; Chromium shows the still image"
	afterPixels   = "bytes after the end of the pixels, maybe private"
	tooMany       = "a block that has more coefficients than it can, which decoders ignore"
	noSize        = "no ispe, which is mandatory"
	noHandler     = "no hdlr, which is mandatory"
	notEssential  = "a transformation that is not essential, which browsers refuse"
	cannotRebuild = "an animation that is broken, so its parts cannot be told from others"
)

// excuses has each file of the collection of .ci/run on which the verdicts differ, and
// some of other collections.
var excuses = []excuse{
	{refused, "badcrc.png", "a wrong CRC of the image data, which Pillow ignores"},
	{refused, "huge_IDAT.png", "a chunk that is longer than the file"},
	{refused, "tRNS_null_1x1.png", afterEnd},
	{refused, "porsche.gif", afterEnd},
	{refused, "moon_impact.gif", afterEnd},
	{refused, "garden.gif", "a byte between blocks"},
	{refused, "test_extents_transparency.gif", "bytes between blocks, which Pillow skips"},
	{refused, "issue_2811.gif", "an LZW minimum code size that GIF does not have"},
	{refused, "jpeg_ff00_header.jpg", betweenParts},
	{refused, "junk_jpeg_header.jpg", betweenParts},
	{refused, "photoshop-200dpi-broken.jpg", betweenParts},
	{refused, "truncated_app14.jpg", betweenParts},
	{refused, "bug13213.jpg", betweenParts},
	{refused, "bug72278.jpg", betweenParts},
	{refused, "alpha_noispe.avif", noSize},
	{refused, "no-alpha-ispe.avif", noSize},
	{refused, "no-ispe.avif", noSize},
	{refused, "label.heic", noSize},
	{refused, "kodim-extents.avif", noHandler},
	{refused, "no-hdlr.avif", noHandler},
	{refused, "valid_with_garbage_byte.avif", afterEnd},
	{refused, "valid_with_garbage_overread.avif", afterEnd},
	{refused, "clap_irot_imir_non_essential.avif", notEssential},
	{refused, "clap-missing-essential.avif", notEssential},
	{refused, "a1op-missing-essential.avif", notEssential},
	{refused, "lsel-missing-essential.avif", notEssential},
	{refused, "a1lx-marked-essential.avif", "an a1lx that is essential, which browsers refuse"},
	{refused, "truncated_elementary_stream.avif", "a sequence header that has another size than ispe"},
	{refused, "poc_b_506387278.avif", "a sample without a frame"},
	{refused, "avis_with_pitm_no_iloc.avif", "a primary item that is not there"},

	{deepRefused, "hopper_bad_exif.jpg", tooMany},
	{deepRefused, "letter_T.jpg", tooMany},
	{deepRefused, "extra-pixels.gif", "more pixels than the image has, which decoders ignore"},
	{deepRefused, "hopper_idat_after_image_end.png", afterPixels},
	{deepRefused, "padded_idat.png", afterPixels},

	{taken, "empty_ancillary_chunks.png", "ancillary chunks that are too short; Chromium ignores them"},
	{taken, "chunk_no_fctl.png", brokenAPNG},
	{taken, "chunk_no_fdat.png", brokenAPNG},
	{taken, "chunk_repeat_fctl.png", brokenAPNG},
	{taken, "sequence_fdat_fctl.png", brokenAPNG},
	{taken, "sequence_gap.png", brokenAPNG},
	{taken, "sequence_reorder.png", brokenAPNG},
	{taken, "sequence_reorder_chunk.png", brokenAPNG},
	{taken, "sequence_repeat.png", brokenAPNG},
	{taken, "sequence_repeat_chunk.png", brokenAPNG},
	{taken, "sequence_start.png", brokenAPNG},
	{taken, "syntax_num_frames_high.png", brokenAPNG},
	{taken, "background_outside_palette.gif", "a background that the palette has not; only old versions of Pillow fail"},
	{taken, "decompression_bomb_extents.gif", "a frame that reaches far beyond the screen; Pillow makes the screen larger, browsers cut the frame off"},
	{taken, "truncated_exif_dpi.jpg", "an Exif block that is cut short; only old versions of Pillow fail"},
	{taken, "clusterfuzz-testcase-minimized-file-fuzzer-5752063708495872.heic", "pixels that are broken; HEVC is not decoded"},

	{notStripped, "hopper_bad_exif.jpg", tooMany},
	{notStripped, "letter_T.jpg", tooMany},
	{notStripped, "chunk_multi_actl.png", cannotRebuild},
	{notStripped, "chunk_no_fctl.png", cannotRebuild},
	{notStripped, "chunk_no_fdat.png", cannotRebuild},
	{notStripped, "chunk_repeat_fctl.png", cannotRebuild},
	{notStripped, "fctl_actl.png", cannotRebuild},
	{notStripped, "sequence_fdat_fctl.png", cannotRebuild},
	{notStripped, "sequence_gap.png", cannotRebuild},
	{notStripped, "sequence_reorder.png", cannotRebuild},
	{notStripped, "sequence_reorder_chunk.png", cannotRebuild},
	{notStripped, "sequence_repeat.png", cannotRebuild},
	{notStripped, "sequence_repeat_chunk.png", cannotRebuild},
	{notStripped, "sequence_start.png", cannotRebuild},
	{notStripped, "syntax_num_frames_high.png", cannotRebuild},
	{notStripped, "syntax_num_frames_invalid.png", cannotRebuild},
	{notStripped, "syntax_num_frames_low.png", cannotRebuild},
	{notStripped, "badadler.png", "a wrong checksum of the pixels"},
	{notStripped, "hopper_idat_after_image_end.png", afterPixels},
	{notStripped, "padded_idat.png", afterPixels},
	{notStripped, "icc-after-SOF.jpg", "two colour profiles, of which decoders may use either"},

	{changed, "chunk_actl_after_idat.png", "an acTL that comes too late, in which Pillow finds a number of loops"},
	{changed, "chunk_no_actl.png", "a fcTL without acTL, in which Pillow finds a duration"},
}
