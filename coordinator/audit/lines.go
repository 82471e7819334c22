package audit

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
)

// Sum is a hash of the chain, written in hex.
type Sum []byte

func (s Sum) String() string { return hex.EncodeToString(s) }

// MarshalText implements encoding.TextMarshaler.
func (s Sum) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Sum) UnmarshalText(text []byte) (err error) {
	*s, err = hex.DecodeString(string(text))
	return err
}

// Header is the first line of an exported file: where in which chain it begins.
type Header struct {
	Format  int    `json:"audit"` // 1
	Cluster string `json:"cluster"`
	Epoch   uint64 `json:"epoch"`
	Before  Sum    `json:"before"` // of the record before the first of the file
}

// FormatLines is the format of exported files: lines of JSON, the header and then records.
const FormatLines = 1

// longestLine is more than any record takes as JSON.
const longestLine = 1 << 20

// ReadLines reads an exported file. It ends without an error before a last line that is
// not whole: its writer was stopped there, and whole is how many bytes come before it.
func ReadLines(r io.Reader) (h Header, records []Record, whole int64, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return h, records, whole, nil
		}
		if err != nil {
			return h, records, whole, fmt.Errorf("read line %d: %w", n, err)
		}
		if len(line) > longestLine {
			return h, records, whole, fmt.Errorf("line %d has %d bytes, which no record has", n, len(line))
		}
		if n == 1 {
			if err = json.Unmarshal(line, &h); err == nil && h.Format != FormatLines {
				err = fmt.Errorf("it has format %d, this build reads %d", h.Format, FormatLines)
			}
		} else {
			var rec Record
			err = json.Unmarshal(line, &rec)
			records = append(records, rec)
		}
		if err != nil {
			return h, records, whole, fmt.Errorf("line %d is not what was exported: %w", n, err)
		}
		whole += int64(len(line))
	}
}
