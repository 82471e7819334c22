package hooks

// LifecycleEvent is a named step of a deployment on a host. The numbers are
// the order of an in-place deployment with traffic control, and are durable:
// never renumber them. The zero value is no event.
type LifecycleEvent uint8

// The thirteen lifecycle events in their order.
const (
	BeforeBlockTraffic LifecycleEvent = iota + 1
	BlockTraffic
	AfterBlockTraffic
	ApplicationStop
	DownloadBundle
	BeforeInstall
	Install
	AfterInstall
	ApplicationStart
	ValidateService
	BeforeAllowTraffic
	AllowTraffic
	AfterAllowTraffic
)

var eventNames = [...]string{
	"none", "BeforeBlockTraffic", "BlockTraffic", "AfterBlockTraffic",
	"ApplicationStop", "DownloadBundle", "BeforeInstall", "Install",
	"AfterInstall", "ApplicationStart", "ValidateService",
	"BeforeAllowTraffic", "AllowTraffic", "AfterAllowTraffic",
}

// String is the name as the appspec writes it.
func (e LifecycleEvent) String() string {
	if int(e) < len(eventNames) {
		return eventNames[e]
	}
	return "unknown"
}

// LifecycleEvents lists all events in their order.
func LifecycleEvents() []LifecycleEvent {
	all := make([]LifecycleEvent, 0, len(eventNames)-1)
	for e := BeforeBlockTraffic; e <= AfterAllowTraffic; e++ {
		all = append(all, e)
	}
	return all
}

// ParseEvent returns the event of that exact name.
func ParseEvent(name string) (LifecycleEvent, bool) {
	for _, e := range LifecycleEvents() {
		if e.String() == name {
			return e, true
		}
	}
	return 0, false
}

// Scriptable reports whether an appspec may hook scripts to the event. The
// other four are the agent's own work.
func (e LifecycleEvent) Scriptable() bool {
	switch e {
	case BlockTraffic, DownloadBundle, Install, AllowTraffic:
		return false
	case BeforeBlockTraffic, AfterBlockTraffic, ApplicationStop, BeforeInstall,
		AfterInstall, ApplicationStart, ValidateService,
		BeforeAllowTraffic, AfterAllowTraffic:
		return true
	}
	return false
}

// OfRunningRevision reports whether the event runs the scripts of the revision
// that is installed, not of the one that comes. They are the events before
// DownloadBundle, whose scripts the host knows before it has fetched anything.
func (e LifecycleEvent) OfRunningRevision() bool {
	return e == BeforeBlockTraffic || e == AfterBlockTraffic || e == ApplicationStop
}

// StopFailureIgnored reports whether a deployment that ignores failures of
// ApplicationStop goes on after a failure of this event.
func (e LifecycleEvent) StopFailureIgnored() bool { return e.OfRunningRevision() }
