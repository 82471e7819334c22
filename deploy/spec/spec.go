package spec

import (
	"github.com/groundswell/groundswell/deploy"
	"github.com/groundswell/groundswell/internal/config"
)

// App is a parsed and valid deploy.yaml.
type App struct {
	Name      string
	Artifacts string // URL of the store that keeps its revisions
	Groups    []Group
}

// Group is one deployment group; groups are in the order of their names.
type Group struct {
	Name   string
	Select string // CEL over host labels
	Config deploy.Config
	// Traffic says which pools send traffic to the hosts; nil is none that we know of.
	Traffic *deploy.Traffic
}

// Parse reads a deploy.yaml. The name is only used in messages. The error is
// config.Errors with every problem found, and of kind "invalid".
func Parse(data []byte, filename string) (*App, error) {
	p := parse(data, filename)
	if err := p.doc.Err(); err != nil {
		return nil, err
	}
	return p.app, nil
}

// parser holds one file on its way from YAML to an App.
type parser struct {
	doc  *config.Document
	file file
	app  *App
	used map[string]bool // named configs that a group uses
}

func parse(data []byte, filename string) *parser {
	p := &parser{doc: config.Parse(data, filename), app: &App{}, used: map[string]bool{}}
	p.doc.Decode(&p.file)
	p.build()
	return p
}
