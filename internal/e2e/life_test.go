package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTheLifeOfACluster does what the pages for operators say, in the order in
// which it may befall a cluster, on machines of a network of its own, beneath
// deployments that go on.
func TestTheLifeOfACluster(t *testing.T) {
	long(t)
	s := newSite(t)
	hosts := []string{"web-1", "web-2", "web-3"}
	s.add("ops", "10.0.0.5")
	for name, address := range map[string]string{
		"c1": "10.0.0.11", "c2": "10.0.0.12", "c3": "10.0.0.13", "new-c3": "10.0.0.23", "c4": "10.0.0.14",
		"web-1": "10.0.0.31", "web-2": "10.0.0.32", "web-3": "10.0.0.33",
	} {
		s.add(name, address)
	}
	const coordinators = "coordinators.md"
	ops := s.machines["ops"]
	t.Cleanup(func() {
		if t.Failed() {
			dumpLogs(t, s.dir)
		}
	})

	s.follow(coordinators, "Begin")
	s.follow(coordinators, "Add one", "c4", "c2", "10.0.0.14", "10.0.0.12")
	s.follow(coordinators, "Add one", "c4", "c3", "10.0.0.14", "10.0.0.13")
	ops.run("dctl token create --role agent --uses 3 > agents.token")
	for _, h := range hosts {
		s.enrol(h, "agents.token")
	}
	ops.await("dctl hosts list --wait 3", "web-3")
	s.application()
	d := s.deploy("v1")
	s.follow(coordinators, "Back up") // while it runs
	d.ends()
	ops.run("dctl cluster snapshot")

	d = s.deploy("v2")
	s.machines["c3"].burn()
	s.follow(coordinators, "Replace one")
	d.ends()

	d = s.deploy("v1")
	s.machines["c2"].burn()
	s.machines["new-c3"].burn()
	s.follow(coordinators, "When a majority is lost for good")
	s.follow(coordinators, "Add one", "c4", "c2", "10.0.0.14", "10.0.0.12")
	s.follow(coordinators, "Add one", "c4", "c3", "10.0.0.14", "10.0.0.13")
	d.ends()

	d = s.deploy("v2")
	ops.run("dctl cluster remove c3 -m stolen")
	s.machines["c3"].kill()
	s.follow("certificates.md", "Replace the CA")
	s.follow("certificates.md", "Replace the ring's key")
	d.ends()

	s.person("ann")
	ops.run("rm -rf prod.backup keys")
	s.follow(coordinators, "Back up") // an older one is of another CA
	d = s.deploy("v1")
	s.follow("certificates.md", "Revoking")
	if out, err := ops.try("dctl -C 10.0.0.11:7100 --credentials ann status"); err == nil {
		t.Errorf("ann, who was revoked, is told %s", out)
	}
	d.ends()

	d = s.deploy("v2")
	s.machines["c1"].burn()
	s.machines["c2"].burn()
	s.follow(coordinators, "When no log is left")
	s.follow("certificates.md", "Revoking") // the backup knows ann, and the key that web-3 had
	s.follow(coordinators, "Add one", "c4", "c2", "10.0.0.14", "10.0.0.12")
	s.follow(coordinators, "Add one")
	if err := <-d.done; err == nil { // it is younger than the backup: nobody knows it any more
		t.Errorf("a deployment that nobody knows succeeded: %s", d.out.String())
	}
	t.Logf("%s", d.out.String())
	s.deploy("v3").ends()

	for page, sections := range runbooks {
		for _, section := range sections {
			if !s.followed[page+" "+section] {
				t.Errorf("%s, %s was not done", page, section)
			}
		}
	}
	time.Sleep(quietFor(t))
	if got := s.serving(hosts...); len(got) != 1 || got[0] != "v3" {
		t.Errorf("in the end the hosts serve %v", got)
	}
	ops.run("dctl cluster status")
	if out := ops.run("dctl status"); !strings.Contains(out, "v3") {
		t.Errorf("%s", out)
	}
}

// enrol starts the agent of a host, with a token for its first start.
func (s *site) enrol(host, token string) {
	s.Helper()
	m := s.machines[host]
	s.write(m.config(), fmt.Sprintf("name: %s\nzone: zone-%s\nlabels: {role: hello}\n"+
		"coordinators: [\"10.0.0.11:7101\", \"10.0.0.12:7101\"]\ninstallRoot: /var/lib/groundswell/fs\n",
		host, host[len(host)-1:]))
	m.do("dagent --join-token-file " + token)
}

// application makes one with three revisions, of which each wave bakes a while.
func (s *site) application() {
	s.Helper()
	ops := s.machines["ops"]
	s.write("hello/deploy.yaml", fmt.Sprintf(`app: hello
artifacts: file://%s/store
groups:
  prod:
    select: role == "hello"
    config:
      capacity: {minHealthy: 60%%, maxConcurrent: 1}
      waves:
        - {name: one-box, select: {count: 1}, bake: {min: 1s}}
        - {name: rest, select: remainder, bake: {min: 1s}}
`, s.dir))
	s.write("hello/appspec.yml", "version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n"+
		"    - {location: start.sh, timeout: 30}\n")
	s.write("hello/start.sh", "#!/bin/sh\nsleep 1\n")
	ops.run("dctl apps apply -f hello/deploy.yaml")
	for _, rev := range []string{"v1", "v2", "v3"} {
		s.write("hello/revision", rev+"\n")
		ops.run("dctl revisions push hello --app hello --rev " + rev)
	}
}

// person makes a key for somebody.
func (s *site) person(name string) {
	s.Helper()
	ops := s.machines["ops"]
	ops.run("dctl token create --role operator --name " + name + " > " + name + ".token")
	ops.run("dctl login " + name + " -C 10.0.0.11:7100 --token-file " + name + ".token --credentials " + name)
	ops.run("dctl login prod -C 10.0.0.11:7100 --credentials admin")
}

func dumpLogs(t *testing.T, dir string) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, l := range logs {
		b, _ := os.ReadFile(l)
		for _, sign := range []string{"fatal error: ", "panic: "} { // what a runtime says comes before its stacks
			if _, from, found := strings.Cut(string(b), sign); found {
				t.Logf("%s: %s%s", filepath.Base(l), sign, from[:min(len(from), 3000)])
			}
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		t.Logf("%s:\n%s", filepath.Base(l), strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}
