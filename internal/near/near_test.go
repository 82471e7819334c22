package near

import "testing"

func TestName(t *testing.T) {
	known := []string{"ApplicationStart", "ApplicationStop", "BeforeInstall", "min-healthy"}
	for typed, want := range map[string]string{
		"AplicationStart": "ApplicationStart", "applicationstop": "ApplicationStop",
		"min_healthy": "min-healthy", "Install": "", "": "", "ebforeInstall": "BeforeInstall",
	} {
		if got := Name(typed, known); got != want {
			t.Errorf("%q is near to %q, not %q", typed, got, want)
		}
	}
}
