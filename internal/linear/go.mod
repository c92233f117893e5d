module github.com/ba692904/imagestore/internal/linear

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/ba692904/imagestore v0.0.0
	github.com/spf13/afero v1.15.0
)

require golang.org/x/text v0.28.0 // indirect

replace github.com/ba692904/imagestore => ../..
