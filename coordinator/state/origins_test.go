package state

import (
	"maps"
	"testing"

	"github.com/groundswell/groundswell/deploy"
)

func vouched(origin, host, key string) OriginEnrolled {
	return OriginEnrolled{
		Origin: origin, Subject: "agent/" + host, Key: []byte(key), Instance: "i",
		Binds: &deploy.Attributes{Zone: "eu-1b", Region: "eu-1"},
		Says: &deploy.Attributes{
			Name: "web-" + host, Zone: "a-first", Region: "moon", Labels: map[string]string{"role": "web"},
		},
	}
}

// A machine that AWS vouches for enrols once: by the same key it is told the same
// again, with another it needs a token, and once it was revoked too.
func TestAMachineEnrolsOnce(t *testing.T) {
	c := newCluster(t)
	c.must(vouched("aws/1/r/i-1", "h1", "k1"))
	c.must(vouched("aws/1/r/i-1", "h1", "k1")) // the answer was lost
	if got := c.view().OriginSubject("aws/1/r/i-1", []byte("k1")); got != "agent/h1" {
		t.Errorf("who asks again is told %q", got)
	}
	if got := c.view().OriginSubject("aws/1/r/i-1", []byte("k2")); got != "" {
		t.Errorf("another key is told %q", got)
	}
	c.refused("dctl token create --host web-h1", vouched("aws/1/r/i-1", "h2", "k2"))
	c.refused("has enrolled already, as agent/h1", vouched("aws/1/r/i-1", "h1", "k2"))
	c.refused("has enrolled already", vouched("aws/1/r/i-1", "h2", "k1"))
	c.refused("nobody else's key gets its name", vouched("aws/1/r/i-2", "h1", "k2")) // an identity that exists
	if len(c.view().Origins) != 1 {
		t.Errorf("refused, and yet written down: %v", c.view().Origins)
	}
	c.must(IdentityRevoked{Request: by("admin"), Identity: "agent/h1"})
	c.refused("was revoked by admin", vouched("aws/1/r/i-1", "h1", "k1"))
	c.refused("was revoked by admin", vouched("aws/1/r/i-1", "h3", "k3"))
	c.token("back", "agent", func(e *TokenCreated) { e.Host = "h1" })
	c.must(used("back", "agent/h1", "k3"))
	c.must(vouched("aws/1/r/i-1", "h1", "k3")) // it is that key's now
}

// What AWS says of it, a machine is; of what AWS does not say, it has the word.
func TestWhatAVouchedMachineIs(t *testing.T) {
	c := newCluster(t)
	c.must(vouched("aws/1/r/i-1", "h1", "k1"))
	e := vouched("aws/1/r/i-2", "h2", "k2")
	e.Binds.Labels = map[string]string{"role": "db"}
	c.must(e)
	for host, labels := range map[string]map[string]string{"h1": {"role": "web"}, "h2": {"role": "db"}} {
		is, _ := c.view().HostAttributes(host)
		if is == nil || is.Zone != "eu-1b" || is.Region != "eu-1" || is.Name != "web-"+host ||
			!maps.Equal(is.Labels, labels) {
			t.Errorf("%s is %+v", host, is)
		}
	}
}
