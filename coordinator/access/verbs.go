// Package access decides who may do what: rights, as people write them in
// access.yaml, and the answers that follow from them. It is pure.
package access

import "slices"

// Verb is something that a person may do.
type Verb string

// Verbs that concern one application, or one group of it.
const (
	View        Verb = "view"
	Push        Verb = "push"
	Define      Verb = "define"
	Deploy      Verb = "deploy"
	Stop        Verb = "stop"
	Approve     Verb = "approve"
	Freeze      Verb = "freeze"
	LiftFreeze  Verb = "lift-freeze"
	ForceBad    Verb = "force-bad"
	Preempt     Verb = "preempt"
	IgnoreFloor Verb = "ignore-floor"
	Emergency   Verb = "emergency"
	Audit       Verb = "audit"
)

// Verbs that concern the fleet or the cluster: a rule gives them only if it is for
// every application and every group.
const (
	Cordon           Verb = "cordon"
	Drain            Verb = "drain"
	Forget           Verb = "forget"
	Label            Verb = "label"
	Split            Verb = "split"
	RevokeHost       Verb = "revoke-host"
	AgentToken       Verb = "agent-token"
	CoordinatorToken Verb = "coordinator-token"
	OperatorToken    Verb = "operator-token"
	Confirm          Verb = "confirm"
	RevokePerson     Verb = "revoke-person"
	Backup           Verb = "backup"
	Cluster          Verb = "cluster"
	Access           Verb = "access"
)

// verb is a row of the table of verbs.
type verb struct {
	name  Verb
	fleet bool
	means string
}

// table lists every verb; nothing else can be given.
var table = []verb{
	{View, false, "see it: lists, status, history, output of hooks"},
	{Push, false, "register revisions"},
	{Define, false, "define, change and delete groups by a deploy.yaml"},
	{Deploy, false, "deploy, resume, retry, promote, skip"},
	{Stop, false, "pause, abort, reject, roll back"},
	{Approve, false, "approve, where a gate asks for it"},
	{Freeze, false, "freeze, and lift one's own freeze"},
	{LiftFreeze, false, "replace or lift the freeze of somebody else"},
	{ForceBad, false, "deploy a revision that is marked bad"},
	{Preempt, false, "take over an older deployment"},
	{IgnoreFloor, false, "define a group whose rollback ignores the floor"},
	{Emergency, false, "deploy past windows, freezes and approvals"},
	{Audit, false, "read who asked for what, and what came of it"},
	{Cordon, true, "cordon and uncordon hosts"},
	{Drain, true, "take hosts out of their pools, and put them back"},
	{Forget, true, "forget hosts"},
	{Label, true, "say what a host is"},
	{Split, true, "say which of two machines keeps an identity"},
	{RevokeHost, true, "revoke the key of a host"},
	{AgentToken, true, "make, list and close join tokens of hosts"},
	{CoordinatorToken, true, "make and close join tokens of coordinators"},
	{OperatorToken, true, "make and close tokens of people"},
	{Confirm, true, "vouch for a person"},
	{RevokePerson, true, "revoke the key of a person"},
	{Backup, true, "read the whole replicated state"},
	{Cluster, true, "remove coordinators, replace CA and ring key, activate an epoch, take snapshots"},
	{Access, true, "change who may do what"},
}

// roles is what a role may. Every verb that is in none is given by name, or with
// admin.
var roles = map[string][]Verb{
	"viewer":   {View},
	"deployer": {View, Push, Define, Deploy, Stop, Freeze},
	"approver": {View, Approve, Stop},
	"operator": {View, Stop, Freeze, Cordon, Drain, Forget, Label, Split, RevokeHost, AgentToken},
	"admin":    Verbs(),
}

// Roles are the names of the roles, from the least to the most.
func Roles() []string { return []string{"viewer", "deployer", "approver", "operator", "admin"} }

// RoleVerbs returns what a role may, nil for no role.
func RoleVerbs(role string) []Verb { return slices.Clone(roles[role]) }

// Verbs returns every verb in the order of the documentation.
func Verbs() []Verb {
	out := make([]Verb, len(table))
	for i, v := range table {
		out[i] = v.name
	}
	return out
}

func find(name Verb) (verb, bool) {
	i := slices.IndexFunc(table, func(v verb) bool { return v.name == name })
	if i < 0 {
		return verb{}, false
	}
	return table[i], true
}

// IsVerb reports whether there is such a verb.
func IsVerb(name Verb) bool { _, ok := find(name); return ok }

// OfFleet reports whether a verb concerns the fleet or the cluster, no application.
func OfFleet(name Verb) bool { v, _ := find(name); return v.fleet }

// Means says in words what a verb allows.
func Means(name Verb) string { v, _ := find(name); return v.means }

// Actions are the verbs that a request on a deployment asks for, by its word; one
// that is in no row is nobody's.
func Actions(word string) []Verb { return slices.Clone(actions[word]) }

var actions = map[string][]Verb{
	"pause": {Stop}, "abort-leave": {Stop}, "abort-rollback": {Stop}, "rollback": {Stop},
	"reject":  {Stop},
	"approve": {Approve},
	"resume":  {Deploy}, "retry": {Deploy}, "promote": {Deploy}, "skip-zone": {Deploy}, "skip-hosts": {Deploy},
	"fixes":     {Deploy},
	"take-over": {Deploy, Preempt},
	"emergency": {Deploy, Emergency},
}
