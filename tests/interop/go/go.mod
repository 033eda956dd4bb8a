module interop

go 1.25.0

require github.com/opentdf/platform/sdk v0.35.0
