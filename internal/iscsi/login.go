package iscsi

import (
	"errors"
	"fmt"
)

// Stage is a phase of a login (RFC 7143 §11.12.3).
type Stage byte

// The stages of a login.
const (
	StageSecurity    Stage = 0
	StageOperational Stage = 1
	StageFull        Stage = 3
)

// Status is a login's Status-Class and Status-Detail (RFC 7143 §11.13.5).
type Status uint16

// The statuses that we answer with or read.
const (
	StatusSuccess          Status = 0x0000
	StatusMovedTemporarily Status = 0x0101
	StatusInitiatorError   Status = 0x0200
	StatusAuthentication   Status = 0x0201 // the initiator is nobody that we know
	StatusAuthorization    Status = 0x0202 // it is known, but may not have this target
	StatusNotFound         Status = 0x0203
	StatusVersion          Status = 0x0205
	StatusMissingParameter Status = 0x0207
	StatusSessionType      Status = 0x0209
	StatusTargetError      Status = 0x0300
	StatusUnavailable      Status = 0x0301 // comes back later; initiators try again
	StatusOutOfResources   Status = 0x0302
)

// Class returns the Status-Class: 0 success, 1 moved, 2 the initiator's fault, 3 the target's.
func (s Status) Class() byte { return byte(s >> 8) }

// String returns the number as initiators log it.
func (s Status) String() string { return fmt.Sprintf("0x%04x", uint16(s)) }

// LoginRequest is RFC 7143 §11.12.
type LoginRequest struct {
	Transit, Continue      bool
	Current, Next          Stage
	VersionMax, VersionMin byte
	ISID                   [6]byte
	TSIH, CID              uint16
	TaskTag                uint32
	CmdSN, ExpStatSN       uint32
	Data                   []byte // text keys
}

// ErrNotLogin says that a PDU is not a login request.
var ErrNotLogin = errors.New("not a login request")

// ParseLoginRequest reads a login request.
func ParseLoginRequest(p PDU) (LoginRequest, error) {
	if p.Opcode() != OpLoginRequest || p.Header[0]&immediate == 0 {
		return LoginRequest{}, fmt.Errorf("opcode 0x%02x: %w", p.Header[0], ErrNotLogin)
	}
	flags := p.Header[1]
	r := LoginRequest{
		Transit: flags&final != 0, Continue: flags&cont != 0,
		Current: Stage(flags >> 2 & 3), Next: Stage(flags & 3),
		VersionMax: p.Header[2], VersionMin: p.Header[3],
		ISID: [6]byte(p.Header[8:14]), TSIH: p.u16(14), TaskTag: p.u32(16), CID: p.u16(20),
		CmdSN: p.u32(24), ExpStatSN: p.u32(28), Data: p.Data,
	}
	if r.Transit && r.Continue {
		return r, fmt.Errorf("both its T and its C bit are set: %w", ErrNotLogin) // RFC 7143 §11.12.2
	}
	return r, nil
}

// PDU returns the wire form.
func (r LoginRequest) PDU() PDU {
	p := PDU{Data: r.Data}
	p.Header[0] = byte(OpLoginRequest) | immediate
	p.Header[1] = loginFlags(r.Transit, r.Continue, r.Current, r.Next)
	p.Header[2], p.Header[3] = r.VersionMax, r.VersionMin
	copy(p.Header[8:], r.ISID[:])
	p.put16(14, r.TSIH)
	p.put32(16, r.TaskTag)
	p.put16(20, r.CID)
	p.put32(24, r.CmdSN)
	p.put32(28, r.ExpStatSN)
	return p
}

func loginFlags(transit, more bool, current, next Stage) byte {
	flags := byte(current&3)<<2 | byte(next&3)
	if transit {
		flags |= final
	}
	if more {
		flags |= cont
	}
	return flags
}

// LoginResponse is RFC 7143 §11.13.
type LoginResponse struct {
	Transit, Continue      bool
	Current, Next          Stage
	VersionMax, VersionAct byte
	ISID                   [6]byte
	TSIH                   uint16
	TaskTag                uint32
	StatSN                 uint32
	ExpCmdSN, MaxCmdSN     uint32
	Status                 Status
	Data                   []byte // text keys
}

// ParseLoginResponse reads a login response.
func ParseLoginResponse(p PDU) (LoginResponse, error) {
	if p.Opcode() != OpLoginResponse {
		return LoginResponse{}, fmt.Errorf("opcode 0x%02x is not a login response", p.Header[0])
	}
	flags := p.Header[1]
	return LoginResponse{
		Transit: flags&final != 0, Continue: flags&cont != 0,
		Current: Stage(flags >> 2 & 3), Next: Stage(flags & 3),
		VersionMax: p.Header[2], VersionAct: p.Header[3],
		ISID: [6]byte(p.Header[8:14]), TSIH: p.u16(14), TaskTag: p.u32(16), StatSN: p.u32(24),
		ExpCmdSN: p.u32(28), MaxCmdSN: p.u32(32), Status: Status(p.u16(36)), Data: p.Data,
	}, nil
}

// PDU returns the wire form.
func (r LoginResponse) PDU() PDU {
	p := PDU{Data: r.Data}
	p.Header[0] = byte(OpLoginResponse)
	p.Header[1] = loginFlags(r.Transit, r.Continue, r.Current, r.Next)
	p.Header[2], p.Header[3] = r.VersionMax, r.VersionAct
	copy(p.Header[8:], r.ISID[:])
	p.put16(14, r.TSIH)
	p.put32(16, r.TaskTag)
	p.put32(24, r.StatSN)
	p.put32(28, r.ExpCmdSN)
	p.put32(32, r.MaxCmdSN)
	p.put16(36, uint16(r.Status))
	return p
}

// Reject returns the answer that ends this login with a status other than success. The sender closes the connection after it.
func (r LoginRequest) Reject(s Status) LoginResponse {
	return LoginResponse{
		Current: r.Current, ISID: r.ISID, TSIH: r.TSIH, TaskTag: r.TaskTag,
		StatSN: r.ExpStatSN, ExpCmdSN: r.CmdSN, MaxCmdSN: r.CmdSN, Status: s,
	}
}

// Login is what the first request of a login says of who asks for what (RFC 7143 §13.4, §13.5, §13.21).
type Login struct {
	Request   LoginRequest
	Initiator string
	Target    string // empty in a discovery session
	Discovery bool
}

// ErrMissingName says that a login does not name its initiator or target.
var ErrMissingName = errors.New("the first login request has no InitiatorName or TargetName")

// ParseLogin reads the first request of a login. The names must stand in it, whatever follows.
func ParseLogin(p PDU) (Login, error) {
	r, err := ParseLoginRequest(p)
	l := Login{Request: r}
	if err != nil {
		return l, err
	}
	keys, err := ParseKeys(r.Data)
	if err != nil && !r.Continue { // with the C bit the last pair may go on in the next PDU
		return l, err
	}
	l.Initiator, _ = keys.Get("InitiatorName")
	l.Target, _ = keys.Get("TargetName")
	kind, _ := keys.Get("SessionType")
	l.Discovery = kind == "Discovery"
	if l.Initiator == "" || l.Target == "" && !l.Discovery {
		return l, ErrMissingName
	}
	return l, nil
}
