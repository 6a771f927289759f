package streamer

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"everboot/internal/iscsi"
)

// CHAP is how a device proves who it is, and the director to it (RFC 7143 §12.1.3).
type CHAP struct {
	User, Secret             string
	MutualUser, MutualSecret string // empty: the director proves nothing
}

const (
	chapMD5 = "5" // the one algorithm that every initiator has (RFC 7143 §12.1.3)
	// chapLength of our challenge in bytes.
	chapLength = 16
	// chapRounds bound the security stage; initiators need three.
	chapRounds = 8
	// chapMost is the longest challenge or response that a key may hold (RFC 7143 §12.1.3).
	chapMost = 1024
)

// errCHAP says that a device did not prove who it is.
var errCHAP = errors.New("CHAP")

// errGoOn says that a streamer's answer cannot follow ours.
var errGoOn = errors.New("CHAP is not possible with it")

func chapResponse(id byte, secret string, challenge []byte) []byte {
	sum := md5.Sum(slices.Concat([]byte{id}, []byte(secret), challenge))
	return sum[:]
}

// binaryValue reads a binary value (RFC 7143 §6.1): hexadecimal after 0x, base64 after 0b.
func binaryValue(text string) ([]byte, error) {
	if len(text) < 2 || len(text) > 2*chapMost+2 {
		return nil, errCHAP
	}
	switch prefix := strings.ToLower(text[:2]); prefix {
	case "0x":
		return hex.DecodeString(text[2:])
	case "0b":
		return base64.StdEncoding.DecodeString(text[2:])
	}
	return nil, errCHAP
}

// authenticate leads the security stage of a login itself, because no streamer knows the secrets, and leaves in c what a streamer
// must be sent to go on after it, and what must stand in its answer. An error that is not errCHAP means that the initiator is gone.
//
// The streamer is logged in to without authentication, at the same stage. Our answers must be numbered so that its own go on from them; goOn looks.
func (d *Director) authenticate(ctx context.Context, c *caller, want CHAP) error {
	request := c.login.Request
	keys, err := iscsi.ParseKeys(request.Data)
	methods, _ := keys.Get("AuthMethod")
	if err != nil || request.Continue || request.Current != iscsi.StageSecurity || !slices.Contains(strings.Split(methods, ","), "CHAP") {
		return fmt.Errorf("%w: it does not offer it", errCHAP)
	}
	defer within(ctx, c.conn, d.cfg.LoginTimeout)()
	challenge, id := make([]byte, chapLength+1), byte(0)
	rand.Read(challenge)
	id, challenge = challenge[chapLength], challenge[:chapLength]
	stat := ^uint32(1) // two before 0: initiators need two answers of ours before the streamer's, and tgt counts from 0
	reply, proved := iscsi.Keys{{Name: "AuthMethod", Value: "CHAP"}, {Name: "TargetPortalGroupTag", Value: "1"}}, false
	for range chapRounds {
		if proved && request.Transit {
			c.resume(request, stat, reply)
			return nil
		}
		if request, err = exchange(c, request, stat, reply); err != nil {
			return err
		}
		stat, reply = stat+1, nil
		if keys, err = iscsi.ParseKeys(request.Data); err != nil {
			return fmt.Errorf("%w: %w", errCHAP, err)
		}
		if offered, ok := keys.Get("CHAP_A"); ok {
			if !slices.Contains(strings.Split(offered, ","), chapMD5) {
				return fmt.Errorf("%w: it does not offer MD5", errCHAP)
			}
			reply = iscsi.Keys{{Name: "CHAP_A", Value: chapMD5}, {Name: "CHAP_I", Value: strconv.Itoa(int(id))}, {Name: "CHAP_C", Value: "0x" + hex.EncodeToString(challenge)}}
		}
		if _, ok := keys.Get("CHAP_R"); ok {
			if reply, err = prove(keys, want, id, challenge); err != nil {
				return err
			}
			proved = true
		}
	}
	return fmt.Errorf("%w: it does not come to an end", errCHAP)
}

// prove checks an initiator's proof, and returns ours if it asks for one.
func prove(keys iscsi.Keys, want CHAP, id byte, challenge []byte) (iscsi.Keys, error) {
	user, _ := keys.Get("CHAP_N")
	text, _ := keys.Get("CHAP_R")
	proof, err := binaryValue(text)
	right := subtle.ConstantTimeCompare(proof, chapResponse(id, want.Secret, challenge)) == 1
	if err != nil || !right || user != want.User {
		return nil, fmt.Errorf("%w: the name or the secret is wrong", errCHAP)
	}
	theirs, ok := keys.Get("CHAP_C")
	if !ok {
		return nil, nil
	}
	number, _ := keys.Get("CHAP_I")
	n, errN := strconv.ParseUint(number, 0, 8)
	ask, err := binaryValue(theirs)
	switch {
	case errN != nil || err != nil || bytes.Equal(ask, challenge): // our own, sent back (RFC 7143 §9.2.1)
		return nil, fmt.Errorf("%w: its challenge cannot be", errCHAP)
	case want.MutualSecret == "":
		return nil, fmt.Errorf("%w: it wants a proof of us, and no secret for that is known", errCHAP)
	}
	return iscsi.Keys{
		{Name: "CHAP_N", Value: want.MutualUser}, {Name: "CHAP_R", Value: "0x" + hex.EncodeToString(chapResponse(byte(n), want.MutualSecret, ask))},
	}, nil
}

// exchange answers a request within the security stage, and reads the next.
func exchange(c *caller, r iscsi.LoginRequest, stat uint32, reply iscsi.Keys) (iscsi.LoginRequest, error) {
	answer := r.Reject(iscsi.StatusSuccess)
	answer.Next, answer.StatSN, answer.Data = r.Next, stat, reply.Append(nil)
	answer.MaxCmdSN = r.CmdSN + 1
	if _, err := c.conn.Write(answer.PDU().Append(nil)); err != nil {
		return r, err
	}
	p, err := iscsi.ReadPDU(c.conn, iscsi.MaxLoginData)
	if err != nil {
		return r, err
	}
	next, err := iscsi.ParseLoginRequest(p)
	if err == nil && (next.Current != iscsi.StageSecurity || next.Continue) {
		err = fmt.Errorf("%w: it left the security stage", errCHAP)
	}
	return next, err
}

// resume makes the last request of the security stage one that a streamer can begin with.
func (c *caller) resume(r iscsi.LoginRequest, stat uint32, reply iscsi.Keys) {
	r.ExpStatSN, r.TSIH = stat, 0
	r.Data = iscsi.Keys{
		{Name: "InitiatorName", Value: c.login.Initiator}, {Name: "TargetName", Value: c.login.Target},
		{Name: "SessionType", Value: "Normal"}, {Name: "AuthMethod", Value: "None"},
	}.Append(nil)
	c.sent = r.PDU().Append(nil)
	c.proof = &proof{stat: stat, keys: reply}
}

// proof is what a streamer's first answer must go on from.
type proof struct {
	stat uint32
	keys iscsi.Keys
}

// goOn makes a streamer's first answer the one that ends the security stage.
func (p *proof) goOn(answer iscsi.LoginResponse) ([]byte, error) {
	if answer.StatSN != p.stat {
		return nil, fmt.Errorf("the streamer counts its answers from %d, not from %d: %w", answer.StatSN, p.stat, errGoOn)
	}
	keys, err := iscsi.ParseKeys(answer.Data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGoOn, err)
	}
	keys = slices.DeleteFunc(keys, func(k iscsi.Key) bool { return k.Name == "AuthMethod" || k.Name == "TargetPortalGroupTag" })
	answer.Data = append(keys, p.keys...).Append(nil)
	return answer.PDU().Append(nil), nil
}
