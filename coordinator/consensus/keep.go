package consensus

import "time"

// keepEvery is how often a full disk is looked at for room, and a snapshot that
// failed is tried again.
const keepEvery = 2 * time.Second

// keep takes snapshots by bytes, and brings a node with a full disk back, until
// the node is closed.
func (n *Node) keep() {
	look := time.NewTicker(keepEvery)
	defer look.Stop()
	full := false // and did what could be done
	var tried time.Time
	for {
		select {
		case <-n.stop:
			return
		case <-n.store.wake:
		case <-look.C:
			n.trail()
			n.store.relieve()
		}
		was := full
		full = n.store.refuses() != nil
		if full && !was {
			_ = n.HandOver() // others may have room; a lone node has nobody
		}
		if full && !was || n.store.due(n.bytes) && time.Since(tried) >= keepEvery {
			tried = time.Now()
			n.shrink()
		}
	}
}

// trail has raft keep so many entries behind a snapshot as make half of the
// bytes of one.
func (n *Node) trail() {
	c := n.raft.ReloadableConfig()
	if trailing := n.store.trailing(n.bytes / 2); trailing != c.TrailingLogs {
		c.TrailingLogs = trailing
		_ = n.raft.ReloadConfig(c) // refuses what is below 1, which it is not
	}
}

// shrink takes a snapshot and drops what is before it. What fails is tried again
// when it is due: raft says why in its log.
func (n *Node) shrink() {
	n.trail()
	_ = n.Snapshot()
}
