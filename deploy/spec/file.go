package spec

import (
	"time"

	"github.com/groundswell/groundswell/internal/config"
)

// file is deploy.yaml as it is written. These structs are the one place that
// says what may be written: the decoder and the JSON Schema both read them.
type file struct {
	App       string                 `yaml:"app,required"`
	Artifacts string                 `yaml:"artifacts,required"`
	Configs   map[string]*configFile `yaml:"configs"`
	Groups    map[string]*groupFile  `yaml:"groups,required"`
}

type groupFile struct {
	Select         string           `yaml:"select,required"`
	Config         configRef        `yaml:"config"`
	Traffic        []poolFile       `yaml:"traffic"`
	Timeouts       exchangeTimeouts `yaml:"timeouts"`
	OnDrainTimeout string           `yaml:"onDrainTimeout" enum:"proceed fail"`
}

type configFile struct {
	Capacity           capacityFile           `yaml:"capacity"`
	Stage              stageFile              `yaml:"stage"`
	Warmup             *stageScriptFile       `yaml:"warmup"`
	Taste              *stageScriptFile       `yaml:"taste"`
	Waves              []waveFile             `yaml:"waves"`
	Gates              map[string]*gateFile   `yaml:"gates"`
	Metrics            map[string]*metricFile `yaml:"metrics"`
	PreGates           []string               `yaml:"preGates"`
	OnInconclusive     string                 `yaml:"onInconclusive" enum:"hold pass fail"`
	OnFailure          onFailureFile          `yaml:"onFailure"`
	Decision           decisionFile           `yaml:"decision"`
	FailureBudgetTotal *config.Share          `yaml:"failureBudgetTotal"`
	Rollback           rollbackFile           `yaml:"rollback"`
	InFlight           inFlightFile           `yaml:"inFlight"`
	Timeouts           timeoutsFile           `yaml:"timeouts"`
	WatchAfter         time.Duration          `yaml:"watchAfter"`
	JoinPolicy         string                 `yaml:"joinPolicy" enum:"wave"`
	Stop               string                 `yaml:"stop" enum:"continue fail"`
	_                  struct{}               `later:"notify links"`
}

type capacityFile struct {
	MinHealthy        *config.Share `yaml:"minHealthy"`
	MinHealthyPerZone *config.Share `yaml:"minHealthyPerZone"`
	SmallFleet        string        `yaml:"smallFleet" enum:"relax reject"`
	MaxConcurrent     *config.Share `yaml:"maxConcurrent"`
	MaxZones          *zones        `yaml:"maxZones"`
	PerHost           string        `yaml:"perHost" enum:"exclusive shared"`
	QuorumGroup       *quorumFile   `yaml:"quorumGroup"`
}

type quorumFile struct {
	Label   string `yaml:"label,required"`
	MaxDown int    `yaml:"maxDown,required" min:"1" max:"1000"`
}

type stageFile struct {
	Prefetch  string        `yaml:"prefetch" enum:"none wave fleet"`
	Bandwidth bandwidth     `yaml:"bandwidth"`
	Barrier   string        `yaml:"barrier" enum:"none wave deployment"`
	Quorum    *config.Share `yaml:"quorum"`
}

type stageScriptFile struct {
	Script  string        `yaml:"script,required"`
	Timeout time.Duration `yaml:"timeout"`
	RunAs   string        `yaml:"runas"`
}

type waveFile struct {
	Name             string       `yaml:"name,required"`
	Select           selectFile   `yaml:"select,required"`
	ForEach          string       `yaml:"forEach" enum:"zone"`
	Parallel         []int        `yaml:"parallel" min:"1" max:"1000"`
	OneBox           bool         `yaml:"oneBox"`
	RehearseRollback bool         `yaml:"rehearseRollback"`
	FailureBudget    config.Share `yaml:"failureBudget"`
	Bake             bakeFile     `yaml:"bake"`
	PreGates         []string     `yaml:"preGates"`
	Gates            []string     `yaml:"gates"`
}

type bakeFile struct {
	Min     time.Duration `yaml:"min"`
	Max     time.Duration `yaml:"max"`
	Early   string        `yaml:"early" enum:"pass"`
	Samples samplesFile   `yaml:"samples"`
}

type samplesFile struct {
	Requests int `yaml:"requests,required" min:"1"`
}

type gateFile struct {
	Probe      *probeFile    `yaml:"probe"`
	Prometheus string        `yaml:"prometheus"`
	Max        string        `yaml:"max"` // text: a decimal stays as it is written
	Min        string        `yaml:"min"`
	HostLabel  string        `yaml:"hostLabel"`
	Presence   string        `yaml:"presence"`
	Compare    *compareFile  `yaml:"compare"`
	Webhook    string        `yaml:"webhook"`
	Window     string        `yaml:"window"` // times of the day; of a query, how far it looks back
	Approval   *approvalFile `yaml:"approval"`
	Scope      string        `yaml:"scope" enum:"host zone wave deployment"`
	MinSamples int           `yaml:"minSamples" min:"1"`
	FailLimit  int           `yaml:"failLimit" min:"1" max:"1000"`
	Interval   time.Duration `yaml:"interval"`
	_          struct{}      `later:"cloudwatchAlarm"`
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

type compareFile struct {
	Metric  string `yaml:"metric,required"`
	Against string `yaml:"against" enum:"baseline"`
	Test    string `yaml:"test,required" enum:"sprt mannwhitney"`
	Effect  effect `yaml:"effect"`
}

type approvalFile struct {
	Group   string        `yaml:"group"`
	Count   int           `yaml:"count" min:"1" max:"100"`
	Timeout time.Duration `yaml:"timeout"`
}

// metricFile holds the two kinds of queries: counters of errors, and values.
type metricFile struct {
	Total   string `yaml:"total"`
	Bad     string `yaml:"bad"`
	Samples string `yaml:"samples"`
}

type onFailureFile struct {
	Host *actionFile `yaml:"host"`
	Wave *actionFile `yaml:"wave"`
	Gate *actionFile `yaml:"gate"`
	Test *actionFile `yaml:"test"`
	Bake *actionFile `yaml:"bake"`
}

type actionFile struct {
	Action string `yaml:"action,required" enum:"rollback pause continue"`
	Scope  string `yaml:"scope" enum:"host zone wave all gate"`
	Then   string `yaml:"then" enum:"pause rollback-all"`
}

type decisionFile struct {
	Timeout time.Duration `yaml:"timeout"`
	Then    string        `yaml:"then" enum:"hold rollback-all"`
}

type rollbackFile struct {
	MaxConcurrent *config.Share `yaml:"maxConcurrent"`
	MaxZones      *zones        `yaml:"maxZones"`
	Floor         string        `yaml:"floor" enum:"keep ignore"`
}

type inFlightFile struct {
	Mode  string `yaml:"mode" enum:"staggered serial"`
	Max   int    `yaml:"max" min:"1" max:"100"`
	Queue string `yaml:"queue" enum:"all latest reject"`
}

type timeoutsFile struct {
	Stage       time.Duration `yaml:"stage"`
	Task        time.Duration `yaml:"task"`
	LostAfter   time.Duration `yaml:"lostAfter"`
	ForgetAfter limit         `yaml:"forgetAfter"`
	Deployment  limit         `yaml:"deployment"`
}
