module millrace.local/lnd

go 1.25.10

tool github.com/lightningnetwork/lnd/cmd/lnd

tool github.com/lightningnetwork/lnd/cmd/lncli

require github.com/lightningnetwork/lnd v0.21.2-beta

replace github.com/ulikunitz/xz => github.com/ulikunitz/xz v0.5.11

replace github.com/gogo/protobuf => github.com/gogo/protobuf v1.3.2

replace google.golang.org/protobuf => github.com/lightninglabs/protobuf-go-hex-display v1.33.0-hex-display
