package rpc

import (
	"context"
	"strconv"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// indexKey is the metadata key under which a request carries the index that the
// replica which answers must have applied.
const indexKey = "groundswell-index"

// Seen makes a client read its own writes: it remembers the highest index of
// any answer, and every later request carries it. One may serve several
// connections; its methods may be called concurrently.
type Seen struct{ index atomic.Uint64 }

// Options returns what a connection needs for it.
func (s *Seen) Options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(
			ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker,
			o ...grpc.CallOption,
		) error {
			err := call(s.outgoing(ctx), method, req, reply, cc, o...)
			if m, ok := reply.(interface{ GetIndex() uint64 }); ok && err == nil {
				s.see(m.GetIndex())
			}
			return err
		}),
		grpc.WithChainStreamInterceptor(func(
			ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer,
			o ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			return open(s.outgoing(ctx), d, cc, method, o...)
		}),
	}
}

func (s *Seen) outgoing(ctx context.Context) context.Context {
	i := s.index.Load()
	if i == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, indexKey, strconv.FormatUint(i, 10))
}

func (s *Seen) see(index uint64) {
	for {
		old := s.index.Load()
		if index <= old || s.index.CompareAndSwap(old, index) {
			return
		}
	}
}

// wanted returns the index that a request carries, 0 for none.
func wanted(ctx context.Context) uint64 {
	md, _ := metadata.FromIncomingContext(ctx)
	highest := uint64(0)
	for _, v := range md.Get(indexKey) {
		if i, err := strconv.ParseUint(v, 10, 64); err == nil {
			highest = max(highest, i)
		}
	}
	return highest
}

// staleKey is the metadata key under which a caller says that the answer may be
// stale.
const staleKey = "groundswell-stale"

// Stale makes a connection take answers of a replica that does not know what is
// true now.
func Stale() []grpc.DialOption {
	say := func(ctx context.Context) context.Context { return metadata.AppendToOutgoingContext(ctx, staleKey, "1") }
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(
			ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker,
			o ...grpc.CallOption,
		) error {
			return call(say(ctx), method, req, reply, cc, o...)
		}),
		grpc.WithChainStreamInterceptor(func(
			ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer,
			o ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			return open(say(ctx), d, cc, method, o...)
		}),
	}
}

func mayBeStale(ctx context.Context) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	return len(md.Get(staleKey)) > 0
}
