// Package config reads strict YAML into structs, and tells people where a file
// is wrong.
//
// A struct names its keys by tags; whatever no tag names is an error:
//
//	type File struct {
//		Name   string            `yaml:"name,required"`
//		Mode   string            `yaml:"mode" enum:"fast safe"`
//		Retry  int               `yaml:"retry" min:"1" max:"10"`
//		Every  time.Duration     `yaml:"every"`  // 90s, 10m, 7d
//		Memory config.Size       `yaml:"memory"` // 64MiB
//		Part   config.Share      `yaml:"part"`   // 25% or 3
//		Env    map[string]string `yaml:"env"`
//		Nested *Nested           `yaml:"nested"`
//		_      struct{}          `later:"notify links"` // known, not supported yet
//	}
//
// Fields keep their value when the file does not name them, so defaults are
// whatever the struct holds before. A type that implements [Unmarshaler] reads
// its own value; a scalar type with a method Set(string) error is read by it.
// Text fields take any scalar as it is written.
//
// Every problem of a file is reported, each with file, line, column, the line
// itself with a caret, and what to do. Flags and environment lie over the file
// by [Overlay].
package config
