// SPDX-License-Identifier: Apache-2.0

// A model of the OpenTDF platform with three KASes, on its published parts: its protocol module, its crypto library, the RPC library that it is served with.  What it decides and remembers
// is not the platform's code, which no registry has.
//
//	model ISSUER      prints {"urls":[3],"keys":[3 x SimpleKasKey lists]}, then reads states as JSON lines, each replacing the one before, and answers "ok":
//	{"values":{FQN:AttributeAndValue},"mappings":{FQN:AttributeKeyMapping} or null,"registry":[URL],"deny":[FQN],"down":bool,"page":LENGTH of the registry's,"base":KEY or null}
//
// Tokens are not judged, they only have to be there.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/opentdf/platform/lib/ocrypto"
	"github.com/opentdf/platform/protocol/go/kas"
	"github.com/opentdf/platform/protocol/go/kas/kasconnect"
	"github.com/opentdf/platform/protocol/go/policy"
	"github.com/opentdf/platform/protocol/go/policy/attributes"
	"github.com/opentdf/platform/protocol/go/policy/attributes/attributesconnect"
	"github.com/opentdf/platform/protocol/go/policy/kasregistry"
	"github.com/opentdf/platform/protocol/go/policy/kasregistry/kasregistryconnect"
	"github.com/opentdf/platform/protocol/go/wellknownconfiguration"
	"github.com/opentdf/platform/protocol/go/wellknownconfiguration/wellknownconfigurationconnect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	forbidden = "permission_denied: request error\nrpc error: code = PermissionDenied desc = forbidden"
	undecided = forbidden + ": pdp-denied"
	bad       = "invalid_argument: request error\nrpc error: code = InvalidArgument desc = bad request"
)

var lax = protojson.UnmarshalOptions{DiscardUnknown: true}

type state struct {
	Values, Mappings map[string]json.RawMessage
	Registry, Deny   []string
	Down             bool
	Page             int
	Base             json.RawMessage
}

var (
	lock sync.Mutex
	now  state
)

func current() state {
	lock.Lock()
	defer lock.Unlock()
	return now
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// --- one KAS ---

type key struct {
	kid, pub string
	alg      policy.Algorithm
	private  ocrypto.PrivateKeyDecryptor
}

type access struct {
	kasconnect.UnimplementedAccessServiceHandler
	url  string
	keys map[string]key // by algorithm
}

func newAccess(number int, url string) *access {
	a := &access{url: url, keys: map[string]key{}}
	for name, alg := range map[string]policy.Algorithm{"ec:secp256r1": policy.Algorithm_ALGORITHM_EC_P256, "rsa:2048": policy.Algorithm_ALGORITHM_RSA_2048} {
		pair, err := ocrypto.NewKeyPair(ocrypto.KeyType(name))
		must(err)
		private, err := pair.PrivateKeyInPemFormat()
		must(err)
		pub, err := pair.PublicKeyInPemFormat()
		must(err)
		d, err := ocrypto.FromPrivatePEM(private)
		must(err)
		a.keys[name] = key{fmt.Sprintf("%c%d", name[0], number), pub, alg, d}
	}
	return a
}

func (a *access) simple(name string) *policy.SimpleKasKey {
	k := a.keys[name]
	return &policy.SimpleKasKey{KasUri: a.url, PublicKey: &policy.SimpleKasPublicKey{Algorithm: k.alg, Kid: k.kid, Pem: k.pub}}
}

func (a *access) PublicKey(_ context.Context, q *connect.Request[kas.PublicKeyRequest]) (*connect.Response[kas.PublicKeyResponse], error) {
	name := q.Msg.GetAlgorithm()
	if name == "" {
		name = "rsa:2048"
	}
	k, ok := a.keys[name]
	if !ok {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no key"))
	}
	return connect.NewResponse(&kas.PublicKeyResponse{PublicKey: k.pub, Kid: k.kid}), nil
}

func (a *access) unwrap(o *kas.KeyAccess, text string) ([]byte, error) {
	for _, k := range a.keys {
		if k.kid != o.GetKid() {
			continue
		}
		var got []byte
		var err error
		if d, ok := k.private.(ocrypto.ECDecryptor); ok {
			block, _ := pem.Decode([]byte(o.GetEphemeralPublicKey()))
			if block == nil {
				return nil, errors.New(bad)
			}
			got, err = d.DecryptWithEphemeralKey(o.GetWrappedKey(), block.Bytes)
		} else {
			got, err = k.private.Decrypt(o.GetWrappedKey())
		}
		if err != nil {
			return nil, errors.New(bad)
		}
		mac := hmac.New(sha256.New, got)
		mac.Write([]byte(text))
		want, err := base64.StdEncoding.DecodeString(o.GetPolicyBinding().GetHash())
		if err != nil || !hmac.Equal([]byte(strings.ToLower(string(want))), []byte(hex.EncodeToString(mac.Sum(nil)))) {
			return nil, errors.New(bad)
		}
		return got, nil
	}
	return nil, errors.New(bad)
}

func decide(text string) error {
	var p struct {
		Body struct{ DataAttributes []struct{ Attribute string } }
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(raw, &p) != nil {
		return errors.New(bad)
	}
	s := current()
	for _, d := range p.Body.DataAttributes {
		if s.Down {
			return errors.New(undecided)
		}
		for _, no := range s.Deny {
			if strings.EqualFold(no, d.Attribute) {
				return errors.New(forbidden)
			}
		}
	}
	return nil
}

func (a *access) Rewrap(_ context.Context, q *connect.Request[kas.RewrapRequest]) (*connect.Response[kas.RewrapResponse], error) {
	if q.Header().Get("Authorization") == "" {
		return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("unauthenticated"))
	}
	var claims struct{ RequestBody string }
	var body kas.UnsignedRewrapRequest
	parts := strings.Split(q.Msg.GetSignedRequestToken(), ".")
	if len(parts) != 3 {
		return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("no request token"))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(raw, &claims)
	}
	if err == nil {
		err = lax.Unmarshal([]byte(claims.RequestBody), &body)
	}
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("invalid request body"))
	}
	client, err := ocrypto.FromPublicPEM(body.GetClientPublicKey())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("clientPublicKey"))
	}
	r := &kas.RewrapResponse{}
	if client.Type() == ocrypto.EC {
		r.SessionPublicKey, err = client.PublicKeyInPemFormat()
		must(err)
	}
	for _, one := range body.GetRequests() {
		p := &kas.PolicyRewrapResult{PolicyId: one.GetPolicy().GetId()}
		for _, o := range one.GetKeyAccessObjects() {
			p.Results = append(p.Results, a.result(one.GetPolicy().GetBody(), o, client))
		}
		r.Responses = append(r.Responses, p)
	}
	return connect.NewResponse(r), nil
}

func (a *access) result(text string, o *kas.UnsignedRewrapRequest_WithKeyAccessObject, client ocrypto.PublicKeyEncryptor) *kas.KeyAccessRewrapResult {
	r := &kas.KeyAccessRewrapResult{KeyAccessObjectId: o.GetKeyAccessObjectId(), Status: "permit", Metadata: map[string]*structpb.Value{}}
	got, err := a.unwrap(o.GetKeyAccessObject(), text)
	if err == nil {
		err = decide(text)
	}
	if err == nil {
		got, err = client.Encrypt(got)
	}
	if err != nil {
		r.Status, r.Result = "fail", &kas.KeyAccessRewrapResult_Error{Error: err.Error()}
	} else {
		r.Result = &kas.KeyAccessRewrapResult_KasWrappedKey{KasWrappedKey: got}
	}
	return r
}

// --- the platform ---

type attrs struct {
	attributesconnect.UnimplementedAttributesServiceHandler
}

func notFound() error {
	return connect.NewError(connect.CodeNotFound, errors.New("resource not found"))
}

func (attrs) GetAttributeValuesByFqns(_ context.Context, q *connect.Request[attributes.GetAttributeValuesByFqnsRequest]) (*connect.Response[attributes.GetAttributeValuesByFqnsResponse], error) {
	r := &attributes.GetAttributeValuesByFqnsResponse{FqnAttributeValues: map[string]*attributes.GetAttributeValuesByFqnsResponse_AttributeAndValue{}}
	for _, f := range q.Msg.GetFqns() {
		raw, ok := current().Values[strings.ToLower(f)]
		if !ok {
			return nil, notFound()
		}
		v := &attributes.GetAttributeValuesByFqnsResponse_AttributeAndValue{}
		must(protojson.Unmarshal(raw, v))
		r.FqnAttributeValues[strings.ToLower(f)] = v
	}
	return connect.NewResponse(r), nil
}

func (attrs) GetKeyMappingsByFqns(_ context.Context, q *connect.Request[attributes.GetKeyMappingsByFqnsRequest]) (*connect.Response[attributes.GetKeyMappingsByFqnsResponse], error) {
	s := current()
	if s.Mappings == nil {
		return nil, connect.NewError(connect.CodeUnimplemented, errors.New("not implemented"))
	}
	r := &attributes.GetKeyMappingsByFqnsResponse{FqnKeyMappings: map[string]*attributes.GetKeyMappingsByFqnsResponse_AttributeKeyMapping{}}
	for _, f := range q.Msg.GetFqns() {
		raw, ok := s.Mappings[strings.ToLower(f)]
		if !ok {
			return nil, notFound()
		}
		m := &attributes.GetKeyMappingsByFqnsResponse_AttributeKeyMapping{}
		must(protojson.Unmarshal(raw, m))
		r.FqnKeyMappings[strings.ToLower(f)] = m
	}
	return connect.NewResponse(r), nil
}

type registry struct {
	kasregistryconnect.UnimplementedKeyAccessServerRegistryServiceHandler
}

func (registry) ListKeyAccessServers(_ context.Context, q *connect.Request[kasregistry.ListKeyAccessServersRequest]) (*connect.Response[kasregistry.ListKeyAccessServersResponse], error) {
	r := &kasregistry.ListKeyAccessServersResponse{Pagination: &policy.PageResponse{}}
	page := current().Page
	if page == 0 {
		page = 1000
	}
	for i, u := range current().Registry {
		if at := int(q.Msg.GetPagination().GetOffset()); i >= at && i < at+page {
			r.KeyAccessServers = append(r.KeyAccessServers, &policy.KeyAccessServer{Uri: u})
		} else if i == at+page {
			r.Pagination.NextOffset = int32(i)
		}
	}
	return connect.NewResponse(r), nil
}

type wellKnown struct{ issuer string }

func (w wellKnown) config() *structpb.Struct {
	idp := map[string]any{"issuer": w.issuer, "token_endpoint": w.issuer + "/token", "authorization_endpoint": w.issuer + "/auth", "jwks_uri": w.issuer + "/jwks"}
	var base any = map[string]any{}
	if b := current().Base; len(b) > 0 {
		must(json.Unmarshal(b, &base))
	}
	if base == nil {
		base = map[string]any{}
	}
	s, err := structpb.NewStruct(map[string]any{"platform_issuer": w.issuer, "idp": idp, "base_key": base})
	must(err)
	return s
}

func (w wellKnown) GetWellKnownConfiguration(context.Context, *connect.Request[wellknownconfiguration.GetWellKnownConfigurationRequest]) (*connect.Response[wellknownconfiguration.GetWellKnownConfigurationResponse], error) {
	return connect.NewResponse(&wellknownconfiguration.GetWellKnownConfigurationResponse{Configuration: w.config()}), nil
}

func serve(l net.Listener, a *access, issuer string) {
	mux := http.NewServeMux()
	mux.Handle(kasconnect.NewAccessServiceHandler(a))
	mux.Handle(attributesconnect.NewAttributesServiceHandler(attrs{}))
	mux.Handle(kasregistryconnect.NewKeyAccessServerRegistryServiceHandler(registry{}))
	mux.Handle(wellknownconfigurationconnect.NewWellKnownServiceHandler(wellKnown{issuer}))
	mux.HandleFunc("/.well-known/opentdf-configuration", func(w http.ResponseWriter, _ *http.Request) {
		b, err := protojson.Marshal(wellKnown{issuer}.config())
		must(err)
		w.Header().Set("Content-Type", "application/json")
		w.Write(b)
	})
	// kept connections end after a while, as the platform's do after 10 s
	must((&http.Server{Handler: mux, IdleTimeout: time.Second}).Serve(l))
}

func main() {
	var said struct {
		Urls []string            `json:"urls"`
		Keys [][]json.RawMessage `json:"keys"`
	}
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(err)
		a := newAccess(i, fmt.Sprintf("http://localhost:%d", l.Addr().(*net.TCPAddr).Port))
		said.Urls = append(said.Urls, a.url)
		var keys []json.RawMessage
		for _, name := range []string{"ec:secp256r1", "rsa:2048"} {
			b, err := protojson.Marshal(a.simple(name))
			must(err)
			keys = append(keys, bytes.Clone(b))
		}
		said.Keys = append(said.Keys, keys)
		go serve(l, a, os.Args[1])
	}
	must(json.NewEncoder(os.Stdout).Encode(said))
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var next state
		must(json.Unmarshal(line, &next))
		lock.Lock()
		now = next
		lock.Unlock()
		fmt.Println("ok")
	}
}
