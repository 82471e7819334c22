package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	waits "github.com/groundswell/groundswell/internal/backoff"
)

// Keepalive: a peer that is gone without a word is noticed within these two.
const (
	pingEvery   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

// Dial returns a connection to one of the addresses: the first that answers is
// used until it fails, then the next. It does not wait for a connection.
func Dial(addresses []string, conf *tls.Config, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	if len(addresses) == 0 {
		return nil, errors.New("no coordinator address")
	}
	r := manual.NewBuilderWithScheme("groundswell")
	var state resolver.State
	for _, a := range addresses {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: a, ServerName: conf.ServerName})
	}
	r.InitialState(state)
	cc, err := grpc.NewClient("groundswell:///coordinators", append([]grpc.DialOption{
		grpc.WithResolvers(r),
		grpc.WithTransportCredentials(credentials.NewTLS(conf)),
		grpc.WithAuthority(conf.ServerName),
		grpc.WithReadBufferSize(0), grpc.WithWriteBufferSize(4 << 10),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: pingEvery, Timeout: pingTimeout,
			PermitWithoutStream: true,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: waits.First, Multiplier: waits.Factor, Jitter: waits.Jitter, MaxDelay: waits.Longest,
			},
			MinConnectTimeout: 5 * time.Second,
		}),
	}, more...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", strings.Join(addresses, ", "), err)
	}
	return cc, nil
}

// Invoke makes a unary call by its full method name; the reply's type comes
// from the registry of compiled-in services.
func Invoke(ctx context.Context, cc grpc.ClientConnInterface, method string, req any) (any, error) {
	out, err := reply(method)
	if err != nil {
		return nil, err
	}
	if err := cc.Invoke(ctx, method, req, out); err != nil {
		return nil, err
	}
	return out, nil
}

func reply(method string) (proto.Message, error) {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return nil, fmt.Errorf("method %s: %w", method, err)
	}
	m, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is no method", method)
	}
	t, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		return nil, fmt.Errorf("reply of %s: %w", method, err)
	}
	return t.New().Interface(), nil
}
