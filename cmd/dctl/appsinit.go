package main

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

//go:embed skeleton
var skeleton embed.FS

var notName = regexp.MustCompile(`[^a-z0-9]+`)

func (c *cli) appsInit() *cobra.Command {
	var app, dir string
	cmd := &cobra.Command{
		Use: "init", Short: "Write a deploy.yaml, an appspec.yml and scripts to start from", Args: upTo(0),
		Long: "Write a commented deploy.yaml, an appspec.yml and hook scripts that work as they are.\nA file that " +
			"exists is never replaced: then nothing is written.",
		Example: "dctl apps init --app www",
	}
	cmd.Flags().StringVar(&app, "app", "", "application (default: the folder's name)")
	cmd.Flags().StringVar(&dir, "dir", ".", "folder to write to")
	cmd.RunE = func(*cobra.Command, []string) error { return c.initApp(app, dir) }
	return cmd
}

func (c *cli) initApp(app, dir string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find %s: %w", dir, err)
	}
	if app == "" {
		app = strings.Trim(notName.ReplaceAllString(strings.ToLower(filepath.Base(abs)), "-"), "-")
	}
	if app == "" || notName.MatchString(strings.ReplaceAll(app, "-", "")) {
		return usage("%q is no name of an application; use lower case letters, digits and '-', as in --app www", app)
	}
	files, err := skeletonFiles(app)
	if err != nil {
		return err
	}
	if err := free(abs, files); err != nil {
		return err
	}
	var written []any
	for _, f := range files {
		if err := writeNew(filepath.Join(abs, f.path), f.data, f.mode); err != nil {
			return err
		}
		written = append(written, f.path)
	}
	return c.show(object{{"app", app}, {"files", written}}, func(w io.Writer) {
		for _, f := range files {
			fmt.Fprintln(w, "wrote", f.path)
		}
		_ = output.Table(w, "next:", []string{ // a broken pipe ends the program anyway
			"  dctl apps lint\tcheck it",
			"  dctl apps apply\tput it into force",
			"  dctl revisions push --app " + app + " --rev v1\tstore a revision",
			"  dctl deploy --app " + app + " --rev v1\tdeploy it",
		})
	})
}

// skeletonFile is one file to write.
type skeletonFile struct {
	path string
	data string
	mode fs.FileMode
}

func skeletonFiles(app string) ([]skeletonFile, error) {
	var out []skeletonFile
	err := fs.WalkDir(skeleton, "skeleton", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := skeleton.ReadFile(path)
		f := skeletonFile{
			path: strings.TrimPrefix(path, "skeleton/"),
			data: strings.ReplaceAll(string(data), "@APP@", app), mode: 0o644,
		}
		if strings.HasSuffix(path, ".sh") {
			f.mode = 0o755
		}
		out = append(out, f)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the skeleton: %w", err)
	}
	return out, nil
}

// free checks that nothing would be replaced, before anything is written.
func free(dir string, files []skeletonFile) error {
	var taken []string
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.path)); !errors.Is(err, fs.ErrNotExist) {
			taken = append(taken, f.path)
		}
	}
	if len(taken) > 0 {
		return &exitError{code: exitRefused, text: fmt.Sprintf("%s holds %s already; nothing was written. Move them "+
			"away, or choose another folder with --dir", dir, strings.Join(taken, ", "))}
	}
	return nil
}

func writeNew(path, data string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create folder for %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.WriteString(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
