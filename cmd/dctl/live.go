package main

import (
	"context"
	"time"

	tea "charm.land/bubbletea/v2"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// live draws a watch on the terminal, inline: what it last drew stays in the
// scrollback.
func (cl *client) live(ctx context.Context, t target, s *story, updates <-chan update) error {
	m := &liveModel{cl: cl, ctx: ctx, t: t, s: s, updates: updates, width: 80, height: 24, plain: cl.cli.flags.noColor}
	options := []tea.ProgramOption{
		tea.WithContext(ctx), tea.WithInput(cl.cli.in), tea.WithOutput(cl.cli.out),
		tea.WithoutSignalHandler(),
	}
	if !terminal(cl.cli.out) {
		options = append(options, tea.WithWindowSize(m.width, m.height)) // nobody else knows its size
	}
	_, err := tea.NewProgram(m, options...).Run()
	switch {
	case m.err != nil:
		return m.err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

// liveModel is what the live view shows and what its keys do. bubbletea calls
// it from one goroutine.
type liveModel struct {
	cl      *client
	ctx     context.Context //nolint:containedctx // the view lives as long as the watch
	t       target
	s       *story
	updates <-chan update
	width   int // of the terminal, in columns and rows
	height  int
	plain   bool
	ask     bool   // whether to abort
	said    string // the answer to the last key
	err     error
	done    bool
}

// saidMsg is the answer to a key.
type saidMsg string

// closedMsg says that there are no more updates.
type closedMsg struct{}

// Init waits for the first update.
func (m *liveModel) Init() tea.Cmd { return m.next() }

func (m *liveModel) next() tea.Cmd {
	return func() tea.Msg {
		u, ok := <-m.updates
		if !ok {
			return closedMsg{}
		}
		return u
	}
}

// Update takes news and keys.
func (m *liveModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case update:
		return m, m.take(msg)
	case closedMsg:
		return m, m.quit(m.ctx.Err())
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.key(msg.String())
	case saidMsg:
		m.said = string(msg)
	}
	return m, nil
}

func (m *liveModel) take(u update) tea.Cmd {
	if u.end != nil {
		return m.quit(u.end)
	}
	m.s.add(u)
	if len(u.records) > 0 {
		m.said = ""
	}
	return m.next()
}

func (m *liveModel) quit(err error) tea.Cmd {
	m.err, m.done = err, true
	return tea.Quit
}

func (m *liveModel) key(k string) tea.Cmd {
	if m.ask {
		m.ask = false
		switch k {
		case "r":
			return m.act("abort-rollback")
		case "l":
			return m.act("abort-leave")
		}
		m.said = "not aborted"
		return nil
	}
	switch k {
	case "q", "ctrl+c":
		return m.quit(errDetached)
	case "p":
		if m.s.deployment.GetStatus() == "paused" {
			return m.act("resume")
		}
		return m.act("pause")
	case "a":
		m.ask = true
	case "l":
		return m.logs()
	}
	return nil
}

func (m *liveModel) act(verb string) tea.Cmd {
	return func() tea.Msg {
		req := &controlv1.ActRequest{Mutation: m.cl.mutation(""), Deployment: m.t.id, Verb: verb}
		if _, err := call(m.ctx, m.cl, controlv1.ControlServiceClient.Act, req); err != nil {
			return saidMsg(verb + ": " + message(err))
		}
		return saidMsg(verb + ": accepted")
	}
}

// logs prints the last lines of what failed, else of everything, above the view.
func (m *liveModel) logs() tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, 5*time.Second)
		defer cancel()
		s, err := m.cl.api().Logs(ctx, &controlv1.LogsRequest{Deployment: m.t.id})
		if err != nil {
			return saidMsg("logs: " + message(err))
		}
		tails := newTails()
		for {
			r, err := s.Recv()
			if err != nil {
				break // the end, or as much as there was
			}
			tails.add(r)
		}
		if tails.empty() {
			return saidMsg("logs: no hook has written anything yet")
		}
		return tea.Println(tails.String())()
	}
}

// View draws the present state.
func (m *liveModel) View() tea.View { return tea.NewView(m.draw()) }
