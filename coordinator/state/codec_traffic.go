package state

import (
	"time"

	"github.com/groundswell/groundswell/deploy"
	statev1 "github.com/groundswell/groundswell/proto/state/v1"
)

func encodeTraffic(t *deploy.Traffic) *statev1.Traffic {
	if t == nil {
		return nil
	}
	return &statev1.Traffic{
		Pools: each(t.Pools, encodePool), DrainNs: int64(t.Drain), AdmitNs: int64(t.Admit), DrainFails: t.DrainFails,
	}
}

func decodeTraffic(t *statev1.Traffic) *deploy.Traffic {
	if t == nil {
		return nil
	}
	return &deploy.Traffic{
		Pools: each(t.Pools, decodePool), Drain: time.Duration(t.DrainNs), Admit: time.Duration(t.AdmitNs),
		DrainFails: t.DrainFails,
	}
}

func encodePool(p deploy.Pool) *statev1.Pool {
	return &statev1.Pool{
		Kind: p.Kind, Balancers: p.Balancers, Backend: p.Backend, Server: p.Server, Path: p.Path, Block: p.Block,
		Allow: p.Allow, SettleNs: int64(p.Settle), Port: int32(p.Port),
	}
}

func decodePool(p *statev1.Pool) deploy.Pool {
	return deploy.Pool{
		Kind: p.GetKind(), Balancers: p.GetBalancers(), Backend: p.GetBackend(), Server: p.GetServer(), Path: p.GetPath(),
		Block: p.GetBlock(), Allow: p.GetAllow(), Settle: time.Duration(p.GetSettleNs()),
		Port: int(p.GetPort()),
	}
}
