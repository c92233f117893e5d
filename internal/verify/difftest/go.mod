module github.com/ba692904/imagestore/internal/verify/difftest

go 1.26.0

require (
	github.com/ba692904/imagestore v0.0.0
	github.com/spf13/afero v1.15.0
	golang.org/x/image v0.48.0
)

require golang.org/x/text v0.44.0 // indirect

replace github.com/ba692904/imagestore => ../../..
