package arch

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

type source struct {
	pkg   string
	fset  *token.FileSet
	files []*ast.File
}

func parse(t *testing.T, p pkg) source {
	t.Helper()
	s := source{pkg: p.short(), fset: token.NewFileSet()}
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(s.fset, filepath.Join(p.Dir, name), nil,
			parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		s.files = append(s.files, f)
	}
	return s
}

func generated(f *ast.File) bool { return ast.IsGenerated(f) }

// TestPureSource walks the pure packages: no clock, no goroutine, no channel.
func TestPureSource(t *testing.T) {
	clock := map[string]bool{
		"Now": true, "Since": true, "Until": true, "After": true, "AfterFunc": true, "Tick": true,
		"NewTimer": true, "NewTicker": true, "Sleep": true, "LoadLocation": true,
	}
	for _, p := range load(t) {
		pure := p.short() == "deploy" || p.short() == "agent/task"
		if !pure && p.short() != "coordinator/state" {
			continue
		}
		s := parse(t, p)
		for _, f := range s.files {
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					if pure {
						t.Errorf("%s: a goroutine in pure policy", s.fset.Position(n.Pos()))
					}
				case *ast.ChanType:
					if pure {
						t.Errorf("%s: a channel in pure policy", s.fset.Position(n.Pos()))
					}
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && clock[n.Sel.Name] {
						t.Errorf("%s: time.%s: all time is data", s.fset.Position(n.Pos()), n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

// TestNoMapOrder finds ranges over maps in package deploy: only order.go may.
func TestNoMapOrder(t *testing.T) {
	for _, p := range load(t) {
		if p.short() != "deploy" {
			continue
		}
		s := parse(t, p)
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
		conf := types.Config{Importer: importer.ForCompiler(s.fset, "source", nil)}
		if _, err := conf.Check(p.ImportPath, s.fset, s.files, info); err != nil {
			t.Fatal(err)
		}
		for _, f := range s.files {
			ast.Inspect(f, func(n ast.Node) bool {
				r, ok := n.(*ast.RangeStmt)
				if !ok {
					return true
				}
				if _, isMap := info.Types[r.X].Type.Underlying().(*types.Map); isMap {
					t.Errorf("%s: range over a map: its order is chance; use sorted", s.fset.Position(n.Pos()))
				}
				return true
			})
		}
	}
}

// TestExportedComments: every exported name says its contract.
func TestExportedComments(t *testing.T) {
	for _, p := range load(t) {
		s := parse(t, p)
		for _, f := range s.files {
			if generated(f) {
				continue
			}
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !wellKnown[d.Name.Name] {
						t.Errorf("%s: exported %s has no comment", s.fset.Position(d.Pos()), d.Name.Name)
					}
				case *ast.GenDecl:
					checkSpecs(t, s.fset, d)
				}
			}
		}
	}
}

// wellKnown methods implement interfaces whose contract is known to everyone.
var wellKnown = map[string]bool{
	"Error": true, "String": true, "Kind": true, "Unwrap": true, "Len": true, "Less": true, "Swap": true, "Push": true, "Pop": true,
	"Is": true, "Network": true, "Addr": true, "Dial": true, "Close": true, "Read": true, "Write": true, "Context": true,
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	x := d.Recv.List[0].Type
	if star, ok := x.(*ast.StarExpr); ok {
		x = star.X
	}
	id, ok := x.(*ast.Ident)
	return ok && id.IsExported()
}

func checkSpecs(t *testing.T, fset *token.FileSet, d *ast.GenDecl) {
	t.Helper()
	for _, sp := range d.Specs {
		switch sp := sp.(type) {
		case *ast.TypeSpec:
			if sp.Name.IsExported() && d.Doc == nil && sp.Doc == nil {
				t.Errorf("%s: exported type %s has no comment", fset.Position(sp.Pos()), sp.Name.Name)
			}
		case *ast.ValueSpec:
			if sp.Names[0].IsExported() && d.Doc == nil && sp.Doc == nil && sp.Comment == nil {
				t.Errorf("%s: exported %s has no comment", fset.Position(sp.Pos()), sp.Names[0].Name)
			}
		}
	}
}

// TestNoInit: nothing happens by importing a package.
func TestNoInit(t *testing.T) {
	for _, p := range load(t) {
		s := parse(t, p)
		for _, f := range s.files {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" && !generated(f) {
					t.Errorf("%s: init()", s.fset.Position(fn.Pos()))
				}
			}
		}
	}
}

// TestLongest prints the five longest files and functions: no limit, a
// question to whoever touches one.
func TestLongest(t *testing.T) {
	type item struct {
		name  string
		lines int
	}
	var files, funcs []item
	for _, p := range load(t) {
		s := parse(t, p)
		for _, f := range s.files {
			if generated(f) {
				continue
			}
			tf := s.fset.File(f.Pos())
			name := strings.TrimPrefix(tf.Name(), filepath.Dir(filepath.Dir(p.Dir)))
			files = append(files, item{name, tf.LineCount()})
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
					n := s.fset.Position(fn.End()).Line - s.fset.Position(fn.Pos()).Line + 1
					funcs = append(funcs, item{p.short() + "." + fn.Name.Name, n})
				}
			}
		}
	}
	for _, list := range [][]item{files, funcs} {
		sort.Slice(list, func(i, j int) bool { return list[i].lines > list[j].lines })
		for _, it := range list[:5] {
			t.Logf("%4d lines  %s", it.lines, it.name)
		}
		t.Logf("     median of %d: %d, p90: %d", len(list), list[len(list)/2].lines, list[len(list)/10].lines)
	}
}
