package hooks

import (
	"fmt"
	"slices"
)

// OrderEvents checks a list of events for a deployment that states its own, and
// adds DownloadBundle and Install where they are missing: as early as they may
// stand, behind the events of the running revision at the list's front. Names
// that are no lifecycle event are custom events and run at their place.
func OrderEvents(names []string) ([]string, error) {
	if err := checkOrder(names); err != nil {
		return nil, err
	}
	front := slices.IndexFunc(names, func(n string) bool { return !beforeDownload(n) })
	if front < 0 {
		front = len(names)
	}
	names = slices.Clone(names)
	if !slices.Contains(names, DownloadBundle.String()) {
		names = slices.Insert(names, front, DownloadBundle.String())
	}
	if !slices.Contains(names, Install.String()) {
		after := slices.Index(names, DownloadBundle.String()) + 1
		names = slices.Insert(names, after, Install.String())
	}
	return names, nil
}

func beforeDownload(name string) bool {
	e, ok := ParseEvent(name)
	return ok && e.OfRunningRevision()
}

func checkOrder(names []string) error {
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("order events: %s is listed twice", name)
		}
	}
	download := slices.Index(names, DownloadBundle.String())
	for _, name := range names[:max(download, 0)] {
		if !beforeDownload(name) {
			return fmt.Errorf("order events: %s stands before DownloadBundle: only BeforeBlockTraffic, "+
				"AfterBlockTraffic and ApplicationStop may", name)
		}
	}
	install := slices.Index(names, Install.String())
	if install >= 0 && download > install {
		return fmt.Errorf("order events: Install stands before DownloadBundle")
	}
	for _, name := range names[:max(install, 0)] {
		if !beforeDownload(name) && name != DownloadBundle.String() && name != BeforeInstall.String() {
			return fmt.Errorf("order events: %s stands before Install: only events of the running revision, "+
				"DownloadBundle and BeforeInstall may", name)
		}
	}
	return nil
}
