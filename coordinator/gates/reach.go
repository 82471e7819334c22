package gates

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Who may deploy names the webhook, and the coordinator asks it from where it
// stands, with what it may reach: so its file says whom it asks, and what answers
// only to the machine itself is never asked.

// checkHooks refuses what is no host of a list of webhooks.
func checkHooks(list []string) error {
	for _, h := range list {
		u, err := url.Parse("http://" + h)
		if err != nil || u.Host != h || u.Hostname() == "" {
			return fmt.Errorf("gates: webhooks: %q is no host; write for instance ci.example or ci.example:8443", h)
		}
	}
	return nil
}

// mayAsk says why a webhook is not asked. An empty list allows every server.
func mayAsk(list []string, hook string) error {
	u, err := url.Parse(hook)
	if err != nil {
		return fmt.Errorf("read the URL: %w", err)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil { // a proxy would dial it
		if err := notLocal("", netip.AddrPortFrom(ip, 1).String(), nil); err != nil {
			return err
		}
	}
	if len(list) == 0 || slices.ContainsFunc(list, func(h string) bool {
		return strings.EqualFold(h, u.Host) || strings.EqualFold(h, u.Hostname())
	}) {
		return nil
	}
	return fmt.Errorf("%s is not in gates.webhooks of coordinator.yaml, so it is not asked", u.Host)
}

// errLocal says that an address answers to the machine itself: of a link, as the
// metadata of a cloud's machine with its credentials.
var errLocal = errors.New("it is an address of the link, where the machine's own credentials are served")

// metadata is AWS's address for IPv6 in place of a link-local one.
var metadata = netip.MustParseAddr("fd00:ec2::254")

// distant dials nothing that is local to the link, whatever a name resolves to.
func distant() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, Control: notLocal}).DialContext
	return t
}

func notLocal(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %s: %w", address, err)
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip == metadata {
		return fmt.Errorf("%s: %w", ip, errLocal)
	}
	return nil
}
