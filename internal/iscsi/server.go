package iscsi

import (
	"errors"
	"fmt"
	"io"
)

// ServerSession is the target's side of a session: enough to list targets, and to be a streamer in tests.
type ServerSession struct {
	// Login is what the initiator asked for.
	Login Login

	rw    io.ReadWriter
	stat  uint32
	cmdSN uint32 // the next that we expect
}

// maxLoginKeys bounds what a login may say over several PDUs.
const maxLoginKeys = 4 * MaxLoginData

// Accept leads a login, whose first request was read already, to the full feature phase without authentication.
func Accept(rw io.ReadWriter, login Login) (*ServerSession, error) {
	s := &ServerSession{Login: login, rw: rw, stat: login.Request.ExpStatSN, cmdSN: login.Request.CmdSN}
	request := login.Request
	var data []byte
	const rounds = 16 // initiators need two or three
	for range rounds {
		if data = append(data, request.Data...); len(data) > maxLoginKeys {
			return nil, ErrTooLong
		}
		answer := s.answer(request)
		if !request.Continue {
			if err := s.negotiate(&answer, data); err != nil {
				return nil, err
			}
			data = nil
		}
		if err := s.write(answer.PDU()); err != nil {
			return nil, fmt.Errorf("sending a login response: %w", err)
		}
		s.stat++
		if answer.Transit && answer.Next == StageFull {
			return s, nil
		}
		p, err := ReadPDU(rw, MaxLoginData)
		if err != nil {
			return nil, err
		}
		if request, err = ParseLoginRequest(p); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the login did not end after %d requests", rounds)
}

func (s *ServerSession) answer(r LoginRequest) LoginResponse {
	answer := LoginResponse{
		Transit: r.Transit, Current: r.Current, Next: r.Next, ISID: r.ISID, TaskTag: r.TaskTag, TSIH: r.TSIH,
		StatSN: s.stat, ExpCmdSN: s.cmdSN, MaxCmdSN: s.cmdSN + 32,
	}
	if r.Transit && r.Next == StageFull {
		answer.TSIH = 1
	}
	return answer
}

func (s *ServerSession) negotiate(answer *LoginResponse, data []byte) error {
	keys, err := ParseKeys(data)
	if err != nil {
		return err
	}
	if methods, ok := keys.Get("AuthMethod"); ok && !offers(methods, "None") {
		answer.Transit, answer.Status = false, StatusAuthentication
		if err := s.write(answer.PDU()); err != nil {
			return err
		}
		return errors.New("the initiator insists on authentication")
	}
	replies := answerKeys(keys)
	if _, first := keys.Get("InitiatorName"); first && !s.Login.Discovery {
		replies = append(replies, Key{"TargetPortalGroupTag", "1"}) // RFC 7143 §13.9
	}
	answer.Data = replies.Append(nil)
	return nil
}

// answerKeys returns the result of each key that wants one (RFC 7143 §13).
func answerKeys(offered Keys) Keys {
	var replies Keys
	for _, k := range offered {
		switch k.Name {
		case "InitiatorName", "InitiatorAlias", "TargetName", "SessionType", "MaxRecvDataSegmentLength":
			continue // declared, not negotiated
		case "AuthMethod", "HeaderDigest", "DataDigest":
			k.Value = "None"
		case "MaxConnections", "MaxOutstandingR2T":
			k.Value = "1"
		case "ErrorRecoveryLevel", "DefaultTime2Retain":
			k.Value = "0"
		case "InitialR2T", "DataPDUInOrder", "DataSequenceInOrder":
			k.Value = "Yes"
		case "DefaultTime2Wait", "ImmediateData", "MaxBurstLength", "FirstBurstLength": // whatever the initiator likes
		default:
			k.Value = "NotUnderstood"
		}
		replies = append(replies, k)
	}
	return replies
}

// Next reads the initiator's next request.
func (s *ServerSession) Next() (PDU, error) {
	p, err := ReadPDU(s.rw, maxData)
	if err == nil && p.Header[0]&immediate == 0 && p.Opcode() <= OpLogoutRequest {
		s.cmdSN = p.u32(24) + 1
	}
	return p, err
}

// Reply sends an answer to a request, with the session's numbers in it.
func (s *ServerSession) Reply(request, answer PDU) error {
	answer.put32(16, request.TaskTag())
	answer.put32(24, s.stat)
	answer.put32(28, s.cmdSN)
	answer.put32(32, s.cmdSN+32)
	s.stat++
	return s.write(answer)
}

func (s *ServerSession) write(p PDU) error {
	_, err := s.rw.Write(p.Append(nil))
	return err
}

// Common answers what is the same in every session: NOP-Out, logout and text requests, for which it lists the targets.
// Done reports that the session is over; handled is false for a request that the caller must answer.
func (s *ServerSession) Common(p PDU, targets []Target) (handled, done bool, err error) {
	var a PDU
	a.Header[1] = final
	switch p.Opcode() {
	case OpNopOut:
		if p.TaskTag() == reserved {
			return true, false, nil
		}
		a.Header[0] = byte(OpNopIn)
		a.put32(20, reserved)
		a.Data = p.Data
	case OpTextRequest:
		a.Header[0] = byte(OpTextResponse)
		a.put32(20, reserved)
		a.Data = sendTargets(p.Data, targets)
	case OpLogoutRequest:
		a.Header[0] = byte(OpLogoutResponse)
		return true, true, s.Reply(p, a)
	default:
		return false, false, nil
	}
	return true, false, s.Reply(p, a)
}

// sendTargets answers SendTargets=All, the empty value (this target) or one name (RFC 7143 appendix C).
func sendTargets(request []byte, targets []Target) []byte {
	keys, err := ParseKeys(request)
	want, ok := keys.Get("SendTargets")
	if err != nil || !ok {
		return nil
	}
	var list Keys
	for _, t := range targets {
		if want != "" && want != "All" && want != t.Name {
			continue
		}
		list = append(list, Key{"TargetName", t.Name})
		for _, a := range t.Addresses {
			list = append(list, Key{"TargetAddress", a})
		}
	}
	return list.Append(nil)
}

// ServeDiscovery answers a discovery session until its logout, with these targets.
func (s *ServerSession) ServeDiscovery(targets []Target) error {
	for {
		p, err := s.Next()
		if err != nil {
			return err
		}
		handled, done, err := s.Common(p, targets)
		if err != nil || done {
			return err
		}
		if handled {
			continue
		}
		var a PDU
		a.Header[0], a.Header[1], a.Header[2] = byte(OpReject), final, 0x05 // command not supported
		a.Data = p.Header[:]
		if err := s.Reply(p, a); err != nil {
			return err
		}
	}
}
