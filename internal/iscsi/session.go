package iscsi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

// Config says how to log in.
type Config struct {
	InitiatorName string
	TargetName    string // leave empty for a discovery session
	// ISID tells apart several sessions of one initiator with one target; a second login with the same one ends the first
	// (RFC 7143 §6.3.5). Zero: a fixed one of the "random" format.
	ISID [6]byte
	// LUN is the logical unit. Zero: 1, because LUN 0 of a tgt target is its controller.
	LUN byte
	// Dial opens the connection. Nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// LoginError is a login that the target answered with another status than success.
type LoginError struct {
	Status Status
	// Address is where a redirected login shall go (TargetAddress), only with class 1.
	Address string
}

// Error returns the status in hexadecimal.
func (e *LoginError) Error() string {
	if e.Address != "" {
		return fmt.Sprintf("login answered %s: moved to %s", e.Status, e.Address)
	}
	return fmt.Sprintf("login answered %s", e.Status)
}

// Session is a logged-in connection with one command at a time. Its methods may be called by several goroutines.
type Session struct {
	// Keys are what the target answered in the login.
	Keys Keys

	conn     net.Conn
	lun      byte
	mu       sync.Mutex
	tag      uint32
	cmdSN    uint32
	expStat  uint32
	cid      uint16
	capacity Capacity
}

// Dial connects to address ("198.18.0.10:3260") and logs in.
func Dial(ctx context.Context, address string, cfg Config) (*Session, error) {
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", address, err)
	}
	s, err := NewSession(ctx, conn, cfg)
	if err != nil {
		return nil, fmt.Errorf("logging in at %s: %w", address, err)
	}
	return s, nil
}

// NewSession logs in over a connection, which it closes if that does not succeed.
func NewSession(ctx context.Context, conn net.Conn, cfg Config) (*Session, error) {
	s := &Session{conn: conn, lun: cfg.LUN, cmdSN: 1, tag: 1}
	if s.lun == 0 {
		s.lun = 1
	}
	if err := s.watch(ctx, func() error { return s.login(cfg) }); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

// watch runs f and makes its reads and writes fail when ctx ends.
func (s *Session) watch(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, func() { s.conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() {
		return errors.Join(ctx.Err(), err)
	}
	return err
}

func loginKeys(cfg Config) Keys {
	keys := Keys{{"InitiatorName", cfg.InitiatorName}}
	if cfg.TargetName == "" {
		keys = append(keys, Key{"SessionType", "Discovery"})
	} else {
		keys = append(keys, Key{"SessionType", "Normal"}, Key{"TargetName", cfg.TargetName})
	}
	return append(keys, Key{"AuthMethod", "None"})
}

var operationalKeys = Keys{
	{"HeaderDigest", "None"},
	{"DataDigest", "None"},
	{"DefaultTime2Wait", "0"},
	{"DefaultTime2Retain", "0"},
	{"ErrorRecoveryLevel", "0"},
	{"MaxRecvDataSegmentLength", strconv.Itoa(maxData)},
	{"InitialR2T", "Yes"},
	{"ImmediateData", "Yes"},
	{"MaxBurstLength", strconv.Itoa(1 << 20)},
	{"FirstBurstLength", strconv.Itoa(64 << 10)},
	{"MaxOutstandingR2T", "1"},
	{"MaxConnections", "1"},
}

// login goes through the security and the operational stage (RFC 7143 §6.3).
func (s *Session) login(cfg Config) error {
	r := LoginRequest{
		Transit: true, Current: StageSecurity, Next: StageOperational, ISID: cfg.ISID,
		TaskTag: s.tag, CmdSN: s.cmdSN, Data: loginKeys(cfg).Append(nil),
	}
	if r.ISID == ([6]byte{}) {
		r.ISID = [6]byte{0x80, 0xeb, 0x00, 0x7b, 0x00, 0x00}
	}
	const rounds = 8 // a target of ours needs two
	for range rounds {
		if _, err := s.conn.Write(r.PDU().Append(nil)); err != nil {
			return fmt.Errorf("sending a login request: %w", err)
		}
		answer, err := s.loginAnswer()
		if err != nil {
			return err
		}
		s.expStat = answer.StatSN + 1
		r.ExpStatSN, r.TSIH, r.Data = s.expStat, answer.TSIH, nil
		switch {
		case answer.Transit && answer.Next == StageFull:
			return nil
		case answer.Transit && answer.Next == StageOperational:
			r.Current, r.Next, r.Data = StageOperational, StageFull, operationalKeys.Append(nil)
		}
	}
	return fmt.Errorf("the login did not end after %d requests", rounds)
}

func (s *Session) loginAnswer() (LoginResponse, error) {
	p, err := ReadPDU(s.conn, MaxLoginData)
	if err != nil {
		return LoginResponse{}, fmt.Errorf("waiting for a login response: %w", err)
	}
	answer, err := ParseLoginResponse(p)
	if err != nil {
		return answer, err
	}
	keys, err := ParseKeys(answer.Data)
	if err != nil && !answer.Continue {
		return answer, err
	}
	s.Keys = append(s.Keys, keys...)
	if answer.Status != StatusSuccess {
		moved, _ := keys.Get("TargetAddress")
		return answer, &LoginError{Status: answer.Status, Address: moved}
	}
	return answer, nil
}

// Close closes the connection without a logout.
func (s *Session) Close() error { return s.conn.Close() }

// Logout ends the session in order (RFC 7143 §11.14) and closes the connection.
func (s *Session) Logout(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.conn.Close()
	return s.watch(ctx, func() error {
		p := s.request(OpLogoutRequest, true)
		p.Header[1] = final // reason 0: close the session
		if err := s.send(p); err != nil {
			return fmt.Errorf("sending a logout: %w", err)
		}
		answer, err := s.receive(p.TaskTag())
		if err != nil {
			return fmt.Errorf("waiting for the logout's answer: %w", err)
		}
		if answer.Opcode() != OpLogoutResponse || answer.Header[2] != 0 {
			return fmt.Errorf("logout answered with opcode 0x%02x, response %d", answer.Header[0], answer.Header[2])
		}
		return nil
	})
}

// Ping sends a NOP-Out and waits for its answer (RFC 7143 §11.18).
func (s *Session) Ping(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watch(ctx, func() error {
		p := s.request(OpNopOut, true)
		p.Header[1] = final
		p.put32(20, reserved)
		if err := s.send(p); err != nil {
			return fmt.Errorf("sending a NOP-Out: %w", err)
		}
		_, err := s.receive(p.TaskTag())
		return err
	})
}

// Target is one answer of SendTargets (RFC 7143 appendix C).
type Target struct {
	Name      string
	Addresses []string // "198.18.0.10:3260,1"
}

// SendTargets asks a discovery session which targets there are.
func (s *Session) SendTargets(ctx context.Context) ([]Target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var targets []Target
	err := s.watch(ctx, func() error {
		p := s.request(OpTextRequest, false)
		p.Header[1] = final
		p.put32(20, reserved)
		p.Data = Keys{{"SendTargets", "All"}}.Append(nil)
		if err := s.send(p); err != nil {
			return fmt.Errorf("sending SendTargets: %w", err)
		}
		answer, err := s.receive(p.TaskTag())
		if err != nil {
			return fmt.Errorf("waiting for SendTargets' answer: %w", err)
		}
		keys, err := ParseKeys(answer.Data)
		targets = listTargets(keys)
		return err
	})
	return targets, err
}

func listTargets(keys Keys) []Target {
	var targets []Target
	for _, k := range keys {
		switch {
		case k.Name == "TargetName":
			targets = append(targets, Target{Name: k.Value})
		case k.Name == "TargetAddress" && len(targets) > 0:
			last := &targets[len(targets)-1]
			last.Addresses = append(last.Addresses, k.Value)
		}
	}
	return targets
}
