package spec

import (
	"time"

	"github.com/groundswell/groundswell/internal/config"
)

// file is deploy.yaml as it is written.
type file struct {
	App       string                 `yaml:"app,required"`
	Artifacts string                 `yaml:"artifacts,required"`
	Configs   map[string]*configFile `yaml:"configs"`
	Groups    map[string]*groupFile  `yaml:"groups,required"`
}

type groupFile struct {
	Select string    `yaml:"select,required"`
	Config configRef `yaml:"config"`
}

type configFile struct {
	Capacity           capacityFile         `yaml:"capacity"`
	Waves              []waveFile           `yaml:"waves"`
	Gates              map[string]*gateFile `yaml:"gates"`
	OnFailure          onFailureFile        `yaml:"onFailure"`
	FailureBudgetTotal *config.Share        `yaml:"failureBudgetTotal"`
	Rollback           rollbackFile         `yaml:"rollback"`
	Timeouts           timeoutsFile         `yaml:"timeouts"`
	Stop               string               `yaml:"stop" enum:"continue fail"`
	_                  struct{}             `later:"stage preGates onInconclusive decision inFlight watchAfter joinPolicy notify links"`
}

type capacityFile struct {
	MinHealthy        *config.Share `yaml:"minHealthy"`
	MinHealthyPerZone *config.Share `yaml:"minHealthyPerZone"`
	SmallFleet        string        `yaml:"smallFleet" enum:"relax reject"`
	MaxConcurrent     *config.Share `yaml:"maxConcurrent"`
	MaxZones          *zones        `yaml:"maxZones"`
	PerHost           string        `yaml:"perHost" enum:"exclusive shared"`
}

type waveFile struct {
	Name          string       `yaml:"name,required"`
	Select        selectFile   `yaml:"select,required"`
	ForEach       string       `yaml:"forEach" enum:"zone"`
	Parallel      []int        `yaml:"parallel" min:"1" max:"1000"`
	OneBox        bool         `yaml:"oneBox"`
	FailureBudget config.Share `yaml:"failureBudget"`
	Bake          bakeFile     `yaml:"bake"`
	Gates         []string     `yaml:"gates"`
	_             struct{}     `later:"rehearseRollback"`
}

type bakeFile struct {
	Min time.Duration `yaml:"min"`
	_   struct{}      `later:"max early samples"`
}

type gateFile struct {
	Probe *probeFile `yaml:"probe"`
	Scope string     `yaml:"scope" enum:"host" later:"zone wave all deployment"`
	_     struct{}   `later:"prometheus max minSamples failLimit compare cloudwatchAlarm window approval webhook"`
}

type probeFile struct {
	HTTP        string        `yaml:"http"`
	Expect      int           `yaml:"expect" min:"100" max:"599"`
	TCP         string        `yaml:"tcp"`
	Command     commandFile   `yaml:"command"`
	Consecutive int           `yaml:"consecutive" min:"1" max:"1000"`
	Failures    int           `yaml:"failures" min:"1" max:"1000"`
	Interval    time.Duration `yaml:"interval"`
	Timeout     time.Duration `yaml:"timeout"`
}

type onFailureFile struct {
	Wave *actionFile `yaml:"wave"`
	Gate *actionFile `yaml:"gate"`
	_    struct{}    `later:"host test bake"`
}

type actionFile struct {
	Action string   `yaml:"action,required" enum:"rollback pause" later:"continue"`
	Scope  string   `yaml:"scope" enum:"all" later:"host zone wave gate"`
	_      struct{} `later:"then"`
}

type rollbackFile struct {
	MaxConcurrent *config.Share `yaml:"maxConcurrent"`
	MaxZones      *zones        `yaml:"maxZones"`
	_             struct{}      `later:"floor"`
}

type timeoutsFile struct {
	Stage     time.Duration `yaml:"stage"`
	Task      time.Duration `yaml:"task"`
	LostAfter time.Duration `yaml:"lostAfter"`
	_         struct{}      `later:"drain forgetAfter deployment"`
}
