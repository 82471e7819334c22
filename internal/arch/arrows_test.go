package arch

import (
	"encoding/json"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/groundswell/groundswell/"

// arrows is the whole table of docs/architecture.md: package → what it may
// import of ours. A pattern ending in /* means any package below. Anything
// absent is forbidden.
var arrows = map[string][]string{
	"deploy": nil, "hooks": {"internal/near"}, "artifacts": {"internal/room"},
	"proto/agent/v1": nil, "proto/control/v1": nil, "proto/state/v1": nil,
	"proto/peer/v1": {"proto/agent/v1"}, // coordinators hand on what agents sent
	"internal/arch": nil, "internal/backoff": nil, "internal/config": {"internal/near"}, "internal/discover": nil,
	"internal/durable": nil,
	"internal/gossip":  nil, "internal/memory": nil, "internal/near": nil, "internal/room": nil, "internal/s3server": nil,
	"internal/naming": nil, // one charset, asked by whoever takes a name
	// Keys outlive a power cut by the same write as everything else.
	"internal/identity": {"internal/durable", "internal/naming"},
	"internal/bucket":   nil,
	"internal/rpc":      {"internal/backoff", "internal/bucket", "internal/identity"},

	"deploy/spec": {"deploy", "internal/config", "internal/naming", "internal/near"},
	"deploy/sim":  {"deploy"},

	"artifacts/tree":   {"artifacts"},
	"artifacts/bundle": {"artifacts", "artifacts/tree", "internal/room"},
	"artifacts/cache":  {"artifacts", "artifacts/tree", "internal/room"},
	"artifacts/bundletest": {
		"artifacts", "artifacts/bundle", "artifacts/cache", "artifacts/dirstore",
	},

	"artifacts/dirstore": {"artifacts"}, "artifacts/s3store": {"artifacts"}, "artifacts/miniostore": {"artifacts"},
	"artifacts/retry": {"artifacts", "internal/backoff"},
	"artifacts/storetest": {
		"artifacts", "artifacts/bundle", "artifacts/bundletest", "artifacts/cache", "internal/s3server",
	},
	"artifacts/stores": {"artifacts", "artifacts/*"},

	"coordinator/access":    {"deploy/spec", "internal/config", "internal/naming", "internal/near"},
	"coordinator/audit":     nil,
	"coordinator/state":     {"coordinator/audit", "deploy", "proto/state/v1"},
	"coordinator/consensus": {"internal/durable", "internal/room"}, "coordinator/membership": nil,
	"coordinator/scheduler": {"deploy"},
	"coordinator/gates":     {"deploy", "internal/backoff"},
	"coordinator/fleet":     {"deploy", "deploy/spec", "internal/gossip"},
	"coordinator/batch":     nil,
	"coordinator/archive":   {"artifacts"},
	"coordinator/history":   {"coordinator/archive", "deploy", "internal/backoff", "proto/control/v1"},
	"coordinator/traffic":   {"coordinator/haproxy", "deploy", "internal/backoff", "proto/agent/v1"},
	"coordinator/ec2":       nil,
	"coordinator/haproxy":   nil,
	"coordinator/sessions": {
		"coordinator/batch", "deploy", "internal/backoff", "internal/bucket", "internal/naming", "proto/agent/v1",
	},
	"coordinator/control": {
		"deploy", "deploy/spec", "deploy/sim", "internal/backoff", "internal/naming", "internal/near", "proto/control/v1",
	},
	"coordinator/enrol": {"deploy", "internal/identity", "internal/naming", "proto/agent/v1"},
	"coordinator": {
		"coordinator/*", "deploy", "deploy/spec", "artifacts", "proto/*", "internal/backoff", "internal/durable",
		"internal/naming", "internal/rpc", "internal/identity", "internal/gossip", "internal/discover",
	},

	"agent/task":    nil,
	"agent/journal": {"agent/task", "internal/durable"},
	"agent/release": {"hooks", "internal/durable", "internal/room"},
	"agent/probe":   {"hooks", "internal/backoff"},
	"agent/pool":    {"internal/backoff"},
	"agent": {
		"agent/*", "artifacts", "artifacts/bundle", "artifacts/cache", "hooks", "proto/agent/v1",
		"internal/rpc", "internal/identity", "internal/gossip", "internal/discover", "internal/durable", "internal/naming",
		"internal/room", "internal/backoff",
	},

	"internal/devfleet": {"proto/control/v1", "internal/rpc", "internal/identity", "internal/s3server"},
	"internal/bench": {
		"proto/agent/v1", "proto/control/v1", "internal/rpc", "internal/identity", "internal/devfleet",
	},

	"cmd/dctl/output": {"internal/config"},
	"cmd/dctl/watch":  {"cmd/dctl/output", "internal/backoff", "internal/rpc", "proto/control/v1"},
	"cmd/dctl": {
		"cmd/dctl/output", "cmd/dctl/watch", "coordinator/audit",
		"proto/control/v1", "deploy/spec", "artifacts", "artifacts/bundle", "artifacts/cache", "artifacts/stores",
		"hooks", "agent",
		"internal/backoff", "internal/rpc", "internal/identity", "internal/config", "internal/devfleet",
		"internal/bench", "internal/memory", "internal/naming", "internal/near", "internal/s3server",
	},
	"cmd/dcoord": {"coordinator", "coordinator/ec2", "artifacts/stores", "internal/config", "internal/identity"},
	"cmd/dagent": {
		"agent", "artifacts/stores", "hooks",
		"internal/config", "internal/discover", "internal/identity", "internal/memory",
	},

	"internal/simtest": {
		"coordinator", "agent", "artifacts", "internal/gossip", "internal/identity", "internal/rpc", "proto/control/v1",
	},

	"agent/sweep": nil, // tests alone

	"examples/www": nil,

	"internal/attack":      nil, // tests alone, by hostile clients
	"internal/e2e":         nil, // tests alone, of programs
	"internal/ec2test":     nil, // for tests alone
	"internal/haproxytest": nil, // for tests alone
	"internal/histories":   nil, // for tests alone
	"internal/loopdisk":    nil, // for tests alone
	"internal/mutants":     nil, // tests alone, of tests
}

// external says which packages alone may import a library, and why.
var external = []struct {
	prefix, why string
	only        []string
}{
	{
		"github.com/aws/", "cloud SDKs stay in their store",
		[]string{"artifacts/s3store", "coordinator/ec2", "internal/discover"},
	},
	{"github.com/minio/", "cloud SDKs stay in their store", []string{"artifacts/miniostore"}},
	{"github.com/versity/", "no daemon links an S3 server", []string{"internal/s3server"}},
	{
		"github.com/hashicorp/raft", "raft is fenced off by two packages",
		[]string{"coordinator/consensus", "coordinator/state"},
	},
	{"github.com/hashicorp/memberlist", "gossip is fenced off by one package", []string{"internal/gossip"}},
	{"github.com/prometheus/client_golang/api", "one package asks Prometheus", []string{"coordinator/gates"}},
	{"github.com/prometheus/prometheus", "one package reads PromQL, and no server is linked", []string{"deploy/spec"}},
	{"google.golang.org/grpc/codes", "errors answer Kind(), one place maps them", []string{"internal/rpc", "proto/*"}},
	{"google.golang.org/grpc/status", "errors answer Kind(), one place maps them", []string{"internal/rpc", "proto/*"}},
}

// pureImports is everything that the two pure packages may use: nothing that
// knows a clock, a file, a goroutine or chance.
var pureImports = []string{
	"cmp", "encoding/json", "errors", "fmt", "hash/fnv", "iter", "maps", "math", "math/bits", "slices", "sort", "strconv", "strings", "time",
}

type pkg struct {
	ImportPath, Doc string
	Dir             string
	GoFiles         []string
	Imports         []string
}

// short is the import path below the module.
func (p pkg) short() string { return strings.TrimPrefix(p.ImportPath, module) }

var packages = sync.OnceValues(func() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Dir,GoFiles,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		switch err := dec.Decode(&p); err {
		case nil:
			all = append(all, p)
		case io.EOF:
			return all, nil
		default:
			return nil, err
		}
	}
})

func load(t *testing.T) []pkg {
	t.Helper()
	all, err := packages()
	if err != nil || len(all) < 10 {
		t.Fatalf("list packages: %d found, %v", len(all), err)
	}
	return all
}

func allowed(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if dir, ok := strings.CutSuffix(p, "/*"); ok {
			return strings.HasPrefix(name, dir+"/")
		}
		return p == name
	})
}

func TestArrows(t *testing.T) {
	for _, p := range load(t) {
		may, known := arrows[p.short()]
		if !known {
			t.Errorf("%s has no row in the table of arrows: add it there and in docs/architecture.md, or find it a home", p.short())
			continue
		}
		for _, i := range p.Imports {
			if name, ours := strings.CutPrefix(i, module); ours && !allowed(may, name) {
				t.Errorf("%s imports %s: no arrow allows it", p.short(), name)
			}
		}
	}
}

func TestExternalFences(t *testing.T) {
	for _, p := range load(t) {
		for _, i := range p.Imports {
			for _, f := range external {
				if strings.HasPrefix(i, f.prefix) && !allowed(f.only, p.short()) {
					t.Errorf("%s imports %s: %s (%s)", p.short(), i, f.why, strings.Join(f.only, ", "))
				}
			}
		}
	}
}

func TestIslandsUseNoGRPC(t *testing.T) {
	for _, p := range load(t) {
		islands := []string{
			"deploy", "hooks", "artifacts", "artifacts/bundle", "artifacts/cache", "artifacts/tree", "agent/task",
		}
		if !slices.Contains(islands, p.short()) {
			continue
		}
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "google.golang.org/grpc") || i == "log/slog" || i == "log" {
				t.Errorf("%s imports %s: an island neither speaks gRPC nor logs", p.short(), i)
			}
		}
	}
}

func TestPureImports(t *testing.T) {
	seen := 0
	for _, p := range load(t) {
		if p.short() != "deploy" && p.short() != "agent/task" {
			continue
		}
		seen++
		for _, i := range p.Imports {
			if !slices.Contains(pureImports, i) {
				t.Errorf("%s imports %s: it is pure policy and may use only %v", p.short(), i, pureImports)
			}
		}
	}
	if seen != 2 {
		t.Fatalf("found %d of 2 pure packages", seen)
	}
}

func TestPackageComments(t *testing.T) {
	for _, p := range load(t) {
		if !strings.HasPrefix(p.Doc, "Package ") && !strings.HasPrefix(p.Doc, "Command ") {
			t.Errorf("%s has no package comment that begins with its name", p.short())
		}
	}
}

func TestPackageNames(t *testing.T) {
	banned := []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "base", "shared", "models"}
	for _, p := range load(t) {
		if slices.Contains(banned, path.Base(p.short())) {
			t.Errorf("%s: a package is named after what it is about", p.short())
		}
	}
}
