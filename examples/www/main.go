// Command www is the example application of Groundswell: a web server that
// says which revision it is, and the bundle around it.
package main

import (
	"embed"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// bundleFiles is what a bundle holds beside the program itself.
//
//go:embed appspec.yml scripts
var bundleFiles embed.FS

const help = `usage:
  www serve                                         answer on $PORT
  www check [--wait 10s] URL                        exit 0 when URL answers 200
  www stop                                          end the server of $WWW_STATE
  www bundle --dir DIR --revision REV [--behaviour 500]   write a bundle

example:
  www bundle --dir /tmp/www-v1 --revision v1
`

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "www:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("say what to do\n%s", help)
	}
	switch args[0] {
	case "serve":
		return serve(out)
	case "check":
		return check(args[1:])
	case "stop":
		return stop()
	case "bundle":
		return bundle(args[1:])
	}
	return fmt.Errorf("unknown command %q\n%s", args[0], help)
}

// bundle writes a bundle: appspec, scripts, this program, the revision's name.
func bundle(args []string) error {
	f := flag.NewFlagSet("bundle", flag.ContinueOnError)
	dir := f.String("dir", "", "folder to write")
	revision := f.String("revision", "", "what the application answers")
	behaviour := f.String("behaviour", "", "500 makes it start and answer nothing but errors")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *dir == "" || *revision == "" {
		return fmt.Errorf("bundle needs --dir and --revision")
	}
	if err := copyFiles(*dir); err != nil {
		return err
	}
	if err := copySelf(filepath.Join(*dir, "www")); err != nil {
		return err
	}
	for name, text := range map[string]string{"revision": *revision, "behaviour": *behaviour} {
		if err := os.WriteFile(filepath.Join(*dir, name), []byte(text+"\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func copyFiles(dir string) error {
	return fs.WalkDir(bundleFiles, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, path)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		data, err := bundleFiles.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o755)
	})
}

func copySelf(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	in, err := os.Open(self)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close() // the copy's error says more
		return err
	}
	return out.Close()
}
