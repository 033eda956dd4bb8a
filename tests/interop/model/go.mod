module model

go 1.25.0

require (
	connectrpc.com/connect v1.20.0
	github.com/opentdf/platform/lib/ocrypto v0.14.0
	github.com/opentdf/platform/protocol/go v0.42.0
)
