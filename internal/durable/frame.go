package durable

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// A record on disk is a frame: magic (4 bytes), length of the payload (4),
// CRC-32C of length and payload (4), payload. Numbers are little endian.
// The magic lets a reader find the next frame behind damage, which is how a
// torn tail (nothing valid follows) is told from a damaged file (something
// valid follows).
const (
	frameMagic  = 0x9e67736c // no valid UTF-8 text begins with it
	frameHeader = 12
)

// MaxRecord is the largest payload of one record. A journal record is below
// 64 KiB; the limit keeps a damaged length from asking for gigabytes.
const MaxRecord = 4 << 20

func appendFrame(dst, payload []byte) []byte {
	var h [frameHeader]byte
	binary.LittleEndian.PutUint32(h[0:], frameMagic)
	binary.LittleEndian.PutUint32(h[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(h[8:], frameSum(h[4:8], payload))
	return append(append(dst, h[:]...), payload...)
}

func frameSum(length, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(length, table), table, payload)
}

// nextFrame returns the payload of the frame at the start of data and the size
// of the whole frame, or ok false when no intact frame starts there.
func nextFrame(data []byte) (payload []byte, size int, ok bool) {
	if len(data) < frameHeader || binary.LittleEndian.Uint32(data) != frameMagic {
		return nil, 0, false
	}
	n := binary.LittleEndian.Uint32(data[4:])
	if n > MaxRecord || int64(n) > int64(len(data)-frameHeader) {
		return nil, 0, false
	}
	payload = data[frameHeader : frameHeader+int(n)]
	if frameSum(data[4:8], payload) != binary.LittleEndian.Uint32(data[8:]) {
		return nil, 0, false
	}
	return payload, frameHeader + int(n), true
}

// holdsFrame reports whether an intact frame starts anywhere in data.
func holdsFrame(data []byte) bool {
	var magic [4]byte
	binary.LittleEndian.PutUint32(magic[:], frameMagic)
	for {
		i := bytes.Index(data, magic[:])
		if i < 0 {
			return false
		}
		data = data[i:]
		if _, _, ok := nextFrame(data); ok {
			return true
		}
		data = data[1:]
	}
}
