// SPDX-License-Identifier: Apache-2.0

// The published Go SDK as a test partner:
//
//	interop enc|dec|bulk -platform URL -id ID -secret FILE [-kas URL] [-wrap rsa:2048|ec:secp256r1] [-session ec:secp256r1] [-attr FQN]... [-segment N] [-mode v4.2.2] [-wire json|get|grpc] IN OUT [IN OUT]...
//
// The same program builds with v0.35.0 and v0.4.7.  SSL_CERT_FILE names the CA of an https platform.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"connectrpc.com/connect"
	"github.com/opentdf/platform/lib/ocrypto"
	"github.com/opentdf/platform/sdk"
)

type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	var attrs list
	verb := os.Args[1]
	f := flag.NewFlagSet(verb, flag.ExitOnError)
	platform := f.String("platform", "", "")
	id := f.String("id", "", "")
	secret := f.String("secret", "", "")
	kas := f.String("kas", "", "")
	wrap := f.String("wrap", "", "")
	session := f.String("session", "", "")
	mode := f.String("mode", "", "")
	segment := f.Int64("segment", 0, "")
	wire := f.String("wire", "", "")
	f.Var(&attrs, "attr", "")
	must(f.Parse(os.Args[2:]))
	key, err := os.ReadFile(*secret)
	must(err)
	opts := []sdk.Option{sdk.WithClientCredentials(*id, strings.TrimSpace(string(key)), nil)}
	if strings.HasPrefix(*platform, "http://") {
		opts = append(opts, sdk.WithInsecurePlaintextConn())
	}
	switch *wire {
	case "json":
		opts = append(opts, sdk.WithExtraClientOptions(connect.WithProtoJSON()))
	case "get":
		opts = append(opts, sdk.WithExtraClientOptions(connect.WithHTTPGet()))
	case "grpc":
		opts = append(opts, sdk.WithExtraClientOptions(connect.WithGRPC()))
	}
	client, err := sdk.New(*platform, opts...)
	must(err)
	defer client.Close()
	args := f.Args()
	if verb == "bulk" {
		bulk(client, args)
		return
	}
	for i := 0; i+1 < len(args); i += 2 {
		in, err := os.Open(args[i])
		must(err)
		out, err := os.Create(args[i+1])
		must(err)
		if verb == "enc" {
			o := []sdk.TDFOption{sdk.WithKasInformation(sdk.KASInfo{URL: *kas})}
			if *wrap != "" {
				o = append(o, sdk.WithWrappingKeyAlg(ocrypto.KeyType(*wrap)))
			}
			if len(attrs) > 0 {
				o = append(o, sdk.WithDataAttributes(attrs...))
			}
			if *segment > 0 {
				o = append(o, sdk.WithSegmentSize(*segment))
			}
			if *mode != "" {
				o = append(o, sdk.WithTargetMode(*mode))
			}
			_, err = client.CreateTDF(out, in, o...)
		} else {
			var o []sdk.TDFReaderOption
			if *session != "" {
				o = append(o, sdk.WithSessionKeyType(ocrypto.KeyType(*session)))
			}
			r, e := client.LoadTDF(in, o...)
			must(e)
			_, err = io.Copy(out, r)
			if err == io.EOF {
				err = nil
			}
		}
		must(err)
		must(out.Close())
	}
}

func bulk(client *sdk.SDK, args []string) {
	var tdfs []*sdk.BulkTDF
	for i := 0; i+1 < len(args); i += 2 {
		b, err := os.ReadFile(args[i])
		must(err)
		tdfs = append(tdfs, &sdk.BulkTDF{Reader: bytes.NewReader(b), Writer: &bytes.Buffer{}})
	}
	must(client.BulkDecrypt(context.Background(), sdk.WithTDFs(tdfs...), sdk.WithTDFType(sdk.Standard)))
	for i, t := range tdfs {
		must(t.Error)
		must(os.WriteFile(args[2*i+1], t.Writer.(*bytes.Buffer).Bytes(), 0o600))
	}
}
