// Package archive keeps many small items in few objects of an artifact store, named by
// their content: what the replicated state lets go of.
package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/groundswell/groundswell/artifacts"
)

// ErrDamaged says that an object is not what was written, or is no longer there. It is
// never taken for an object without items.
var ErrDamaged = errors.New("what was written is not there")

// Item is one entry of an object.
type Item struct {
	Key  string
	Data []byte
}

// Object describes what was written.
type Object struct {
	Digest   string // "sha256:" and 64 hex digits, of all of its bytes
	Bytes    int64
	Items    int
	From, To string // lowest and highest key
}

// Store is what is used of an [artifacts.Store].
type Store interface {
	Put(ctx context.Context, key string, r io.Reader, size int64) error
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
}

// Bounds of an object, and of objects that are kept decoded for who reads the same
// again.
const (
	mostBytes  = 256 << 20 // as it lies in the store, and decoded
	mostCached = 64 << 20
	format     = 1
)

// Archive reads and writes objects below a prefix. Its methods may be called
// concurrently, and are bounded by their contexts.
type Archive struct {
	store  Store
	prefix string

	mu     sync.Mutex
	recent []decoded // the newest last
	cached int
}

type decoded struct {
	digest string
	items  []Item
	bytes  int
}

// New returns the archive in a folder of a store.
func New(store Store, prefix string) *Archive { return &Archive{store: store, prefix: prefix} }

// head is the first line of an object.
type head struct {
	Format int `json:"format"`
	Items  int `json:"items"`
}

// Write stores the items, each key once, and returns once they were read back from the
// store as they are. An object that was written by a call that failed is named by
// nobody, and does no harm.
func (a *Archive) Write(ctx context.Context, items []Item) (Object, error) {
	items = slices.Clone(items)
	slices.SortFunc(items, func(x, y Item) int { return strings.Compare(x.Key, y.Key) })
	data, err := encode(items)
	if err != nil {
		return Object{}, fmt.Errorf("encode %d items: %w", len(items), err)
	}
	sum := sha256.Sum256(data)
	o := Object{
		Digest: "sha256:" + hex.EncodeToString(sum[:]), Bytes: int64(len(data)), Items: len(items),
		From: items[0].Key, To: items[len(items)-1].Key,
	}
	if err := a.store.Put(ctx, a.key(o.Digest), bytes.NewReader(data), o.Bytes); err != nil {
		return Object{}, fmt.Errorf("write %s: %w", a.key(o.Digest), err)
	}
	back, err := a.fetch(ctx, o.Digest)
	if err != nil {
		return Object{}, fmt.Errorf("read back what was written: %w", err)
	}
	same := func(x, y Item) bool { return x.Key == y.Key && bytes.Equal(x.Data, y.Data) }
	if got, _, err := decode(back); err != nil || !slices.EqualFunc(got, items, same) {
		return Object{}, fmt.Errorf("read back what was written: it is not the same: %w", errors.Join(ErrDamaged, err))
	}
	return o, nil
}

func (a *Archive) key(digest string) string {
	return a.prefix + "/" + strings.TrimPrefix(digest, "sha256:")
}

// Items returns everything that an object holds, by key. Nobody may change it.
func (a *Archive) Items(ctx context.Context, digest string) ([]Item, error) {
	if items, ok := a.kept(digest); ok {
		return items, nil
	}
	data, err := a.fetch(ctx, digest)
	if err != nil {
		return nil, err
	}
	items, size, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w: %w", a.key(digest), ErrDamaged, err)
	}
	a.keep(decoded{digest, items, size})
	return items, nil
}

// Find returns one item of an object.
func (a *Archive) Find(ctx context.Context, digest, key string) ([]byte, error) {
	items, err := a.Items(ctx, digest)
	if err != nil {
		return nil, err
	}
	at, found := slices.BinarySearchFunc(items, key, func(i Item, key string) int { return strings.Compare(i.Key, key) })
	if !found {
		return nil, fmt.Errorf("object %s has no %s: %w", a.key(digest), key, ErrDamaged)
	}
	return items[at].Data, nil
}

// fetch reads an object, which is what its digest says.
func (a *Archive) fetch(ctx context.Context, digest string) ([]byte, error) {
	key := a.key(digest)
	r, err := a.store.Open(ctx, key, 0, -1)
	if artifacts.IsNotExist(err) {
		return nil, fmt.Errorf("object %s: %w: %w", key, ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, mostBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if sum := sha256.Sum256(data); digest != "sha256:"+hex.EncodeToString(sum[:]) {
		return nil, fmt.Errorf("object %s has %d bytes of another digest: %w", key, len(data), ErrDamaged)
	}
	return data, nil
}

func (a *Archive) kept(digest string) ([]Item, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := slices.IndexFunc(a.recent, func(d decoded) bool { return d.digest == digest })
	if at < 0 {
		return nil, false
	}
	d := a.recent[at]
	a.recent = append(slices.Delete(a.recent, at, at+1), d)
	return d.items, true
}

func (a *Archive) keep(d decoded) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.ContainsFunc(a.recent, func(o decoded) bool { return o.digest == d.digest }) {
		return
	}
	a.recent, a.cached = append(a.recent, d), a.cached+d.bytes
	for len(a.recent) > 0 && a.cached > mostCached {
		a.cached -= a.recent[0].bytes
		a.recent = slices.Delete(a.recent, 0, 1)
	}
}

// encode writes the head in a line, and behind it one zstd frame with a checksum: each
// item's key and data, their lengths before them.
func encode(items []Item) ([]byte, error) {
	if len(items) == 0 {
		return nil, errors.New("there are none")
	}
	var out bytes.Buffer
	if err := json.NewEncoder(&out).Encode(head{format, len(items)}); err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	size := 0
	for i, item := range items {
		if i > 0 && items[i-1].Key == item.Key {
			return nil, fmt.Errorf("%s is there twice", item.Key)
		}
		for _, part := range [][]byte{[]byte(item.Key), item.Data} {
			size += len(part)
			_, err1 := z.Write(binary.AppendUvarint(nil, uint64(len(part))))
			_, err2 := z.Write(part)
			if err := errors.Join(err1, err2); err != nil {
				return nil, err
			}
		}
	}
	if size > mostBytes {
		return nil, fmt.Errorf("they have %d bytes, an object at most %d", size, mostBytes)
	}
	err = z.Close() // which writes the rest
	return out.Bytes(), err
}

func decode(data []byte) (items []Item, size int, err error) {
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	var h head
	if err := json.Unmarshal(line, &h); err != nil {
		return nil, 0, fmt.Errorf("its first line: %w", err)
	}
	if h.Format != format {
		return nil, 0, fmt.Errorf("it has format %d, this coordinator reads %d; upgrade it", h.Format, format)
	}
	z, err := zstd.NewReader(bytes.NewReader(rest), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, 0, err
	}
	defer z.Close()
	in := bufio.NewReader(z)
	part := func() ([]byte, error) {
		n, err := binary.ReadUvarint(in)
		if err != nil {
			return nil, err
		}
		if size += int(min(n, mostBytes+1)); size > mostBytes {
			return nil, fmt.Errorf("it holds more than %d bytes", mostBytes)
		}
		b := make([]byte, n)
		_, err = io.ReadFull(in, b)
		return b, err
	}
	for range h.Items {
		key, err1 := part()
		if err1 != nil {
			return nil, 0, fmt.Errorf("item %d: %w", len(items), err1)
		}
		value, err2 := part()
		if err2 != nil {
			return nil, 0, fmt.Errorf("item %d: %w", len(items), err2)
		}
		items = append(items, Item{string(key), value})
	}
	if _, err := in.ReadByte(); err != io.EOF {
		return nil, 0, fmt.Errorf("something follows its %d items: %w", h.Items, err)
	}
	return items, size, nil
}
