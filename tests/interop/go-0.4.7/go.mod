module interop

go 1.24

require github.com/opentdf/platform/sdk v0.4.7
