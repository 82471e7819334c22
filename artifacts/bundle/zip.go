package bundle

import (
	"archive/zip"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/groundswell/groundswell/artifacts"
)

// walkZip reads a zip archive by its central directory; the checksums of the
// format are verified as content is read.
func walkZip(ctx context.Context, name string, g *guard) error {
	z, err := zip.OpenReader(name)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are judged one by one below
		if errors.Is(err, zip.ErrFormat) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("not a whole zip archive (%w): %w", err, artifacts.ErrInvalid)
		}
		return err
	}
	defer z.Close()
	const methodBzip2 = 12
	z.RegisterDecompressor(methodBzip2, func(r io.Reader) io.ReadCloser { return io.NopCloser(bzip2.NewReader(r)) })
	for _, f := range z.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		it, err := zipItem(f)
		if err != nil {
			return err
		}
		if it.Path == "" {
			continue
		}
		if err := g.item(it); err != nil {
			return err
		}
	}
	return nil
}

func zipItem(f *zip.File) (item, error) {
	f.Name = zipName(f)
	name, err := archivePath(f.Name)
	if err != nil || name == "" {
		return item{}, err
	}
	const encrypted = 1
	if f.Flags&encrypted != 0 {
		return item{}, fmt.Errorf("entry %q: is encrypted: %w", f.Name, artifacts.ErrInvalid)
	}
	switch mode := zipMode(f); {
	case mode.IsDir():
		if f.UncompressedSize64 > 0 {
			return item{}, fmt.Errorf("entry %q: a directory with content: %w", f.Name, artifacts.ErrInvalid)
		}
		return item{Entry: artifacts.Entry{Path: name, Type: artifacts.TypeDir}}, nil
	case mode&fs.ModeSymlink != 0:
		return zipLink(f, name)
	case mode.IsRegular():
		e := artifacts.Entry{
			Path: name, Type: artifacts.TypeFile, Mode: permissions(mode), Size: int64(f.UncompressedSize64),
			MTime: zipTime(f),
		}
		return item{Entry: e, setID: hasSetID(mode), open: f.Open}, nil
	default:
		return item{}, fmt.Errorf("entry %q: a %s cannot be part of a bundle: %w", f.Name, kindOf(mode),
			artifacts.ErrInvalid)
	}
}

// zipName is the name as unzip writes it: a zip of DOS whose names have no /
// has \ between the parts, and what is not UTF-8 is of code page 437.
func zipName(f *zip.File) string {
	const dos = 0
	name := f.Name
	if !utf8.ValidString(name) {
		name = fromCP437(name)
	}
	if f.CreatorVersion>>8 == dos && !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, `\`, "/")
	}
	return name
}

// cp437 is the upper half of IBM's code page 437.
var cp437 = []rune("ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐" +
	"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0")

func fromCP437(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c < 0x80 {
			b.WriteByte(c)
		} else {
			b.WriteRune(cp437[c-0x80])
		}
	}
	return b.String()
}

// zipMode is the entry's mode, or 0644 if the zip states none: archives made
// on Windows or by libraries must install readable.
func zipMode(f *zip.File) fs.FileMode {
	const unix, darwin = 3, 19
	mode := f.Mode()
	if strings.HasSuffix(f.Name, "/") {
		return fs.ModeDir | 0o755
	}
	if creator := f.CreatorVersion >> 8; creator != unix && creator != darwin || f.ExternalAttrs>>16 == 0 {
		return 0o644 | mode&fs.ModeDir
	}
	return mode
}

func zipLink(f *zip.File, name string) (item, error) {
	r, err := f.Open()
	if err != nil {
		return item{}, fmt.Errorf("entry %q: read symlink: %w", f.Name, err)
	}
	defer r.Close()
	target, err := io.ReadAll(io.LimitReader(r, artifacts.MaxTarget+1))
	if err != nil {
		return item{}, fmt.Errorf("entry %q: read symlink: %w", f.Name, err)
	}
	return item{Entry: artifacts.Entry{Path: name, Type: artifacts.TypeSymlink, Target: string(target)}}, nil
}

// zipTime is none if the zip states no time: no field, or the first moment that
// a zip can express, which tools write for "none".
func zipTime(f *zip.File) artifacts.Time {
	first := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	if f.ModifiedDate == 0 && f.Modified.IsZero() || f.Modified.UTC().Equal(first) || f.Modified.Year() < 1980 &&
		f.ModifiedDate == 0 {
		return artifacts.Time{}
	}
	return artifacts.At(f.Modified.Unix())
}
