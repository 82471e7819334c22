package artifacts

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// walkZip reads a zip archive by its central directory; the checksums of the
// format are verified as content is read.
func walkZip(ctx context.Context, name string, g *guard) error {
	z, err := zip.OpenReader(name)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are judged one by one below
		if errors.Is(err, zip.ErrFormat) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("not a whole zip archive (%w): %w", err, ErrInvalid)
		}
		return err
	}
	defer z.Close()
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
	name, err := archivePath(f.Name)
	if err != nil || name == "" {
		return item{}, err
	}
	const encrypted = 1
	switch {
	case strings.Contains(f.Name, `\`):
		return item{}, fmt.Errorf(`entry %q: the name has a \: write the zip with / between the parts: %w`, f.Name, ErrInvalid)
	case f.Flags&encrypted != 0:
		return item{}, fmt.Errorf("entry %q: is encrypted: %w", f.Name, ErrInvalid)
	}
	switch mode := zipMode(f); {
	case mode.IsDir():
		if f.UncompressedSize64 > 0 {
			return item{}, fmt.Errorf("entry %q: a directory with content: %w", f.Name, ErrInvalid)
		}
		return item{Entry: Entry{Path: name, Type: TypeDir}}, nil
	case mode&fs.ModeSymlink != 0:
		return zipLink(f, name)
	case mode.IsRegular():
		e := Entry{Path: name, Type: TypeFile, Mode: permissions(mode), Size: int64(f.UncompressedSize64), MTime: zipTime(f)}
		return item{Entry: e, open: f.Open}, nil
	default:
		return item{}, fmt.Errorf("entry %q: a %s cannot be part of a bundle: %w", f.Name, kindOf(mode), ErrInvalid)
	}
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
	target, err := io.ReadAll(io.LimitReader(r, maxTarget+1))
	if err != nil {
		return item{}, fmt.Errorf("entry %q: read symlink: %w", f.Name, err)
	}
	return item{Entry: Entry{Path: name, Type: TypeSymlink, Target: string(target)}}, nil
}

// zipTime is 0 if the zip states no time: no field, or the first moment that
// a zip can express, which tools write for "none".
func zipTime(f *zip.File) int64 {
	first := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	if f.ModifiedDate == 0 && f.Modified.IsZero() || f.Modified.UTC().Equal(first) || f.Modified.Year() < 1980 && f.ModifiedDate == 0 {
		return 0
	}
	return f.Modified.Unix()
}
