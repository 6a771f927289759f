package wire

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"
)

func exampleRecord() Record {
	return Record{
		Number: 7, Met: true, Client: netip.MustParseAddrPort("198.18.0.51:2070"), Server: netip.MustParseAddr("198.18.0.10"), Digest: Digest{1, 2, 3},
		Size: 4 << 20, Block: 1432, Window: 4, Acked: 2000, Request: []byte("\x00\x01file\x00octet\x00blksize\x001432\x00"),
	}
}

func TestHandoverComesBackAsItWas(t *testing.T) {
	six := exampleRecord()
	six.Client, six.Server, six.Met = netip.MustParseAddrPort("[2001:db8::51]:2070"), netip.MustParseAddr("2001:db8::10"), false
	four := exampleRecord()
	six.Port = 51000
	opened := AppendRecord(AppendRecord(AppendHandover(nil, HandoverOpened), &four), &six)
	progress := AppendProgress(AppendProgress(AppendHandover(nil, HandoverProgress), Progress{7, 2001}), Progress{8, 1 << 31})
	closed := AppendClosed(AppendHandover(nil, HandoverClosed), 7)
	for _, c := range []struct {
		message []byte
		want    Handover
	}{
		{opened, Handover{Opened: []Record{four, six}}}, {progress, Handover{Progress: []Progress{{7, 2001}, {8, 1 << 31}}}}, {closed, Handover{Closed: []uint32{7}}},
	} {
		if got, err := ParseHandover(c.message); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%x: %+v, %v", c.message, got, err)
		}
	}
	long := exampleRecord()
	long.Request = make([]byte, MaxRequest+1)
	if b := AppendRecord(nil, &long); len(b) != 0 {
		t.Error("a request that is too long was handed over")
	}
}

func TestMalformedHandover(t *testing.T) {
	r := exampleRecord()
	whole := AppendRecord(AppendHandover(nil, HandoverOpened), &r)
	ported := exampleRecord()
	ported.Port, ported.Request = 51000, nil
	own := AppendRecord(AppendHandover(nil, HandoverOpened), &ported)
	own[3]-- // its length, without the last byte of the port
	unknown := exampleRecord()
	unknown.Digest = Digest{}
	for _, b := range [][]byte{
		nil, {1}, {2, 1}, {1, 9}, whole[:len(whole)-1], whole[:3], AppendRecord(AppendHandover(nil, HandoverOpened), &unknown), {1, 1, 0, 1, 0},
		own[:len(own)-len(ported.Request)-1],
	} {
		if h, err := ParseHandover(b); !errors.Is(err, ErrHandover) {
			t.Errorf("%x: %+v, %v", b, h, err)
		}
	}
}

func FuzzHandover(f *testing.F) {
	r := exampleRecord()
	f.Add(AppendRecord(AppendHandover(nil, HandoverOpened), &r))
	f.Add(AppendProgress(AppendHandover(nil, HandoverProgress), Progress{7, 2001}))
	f.Add(AppendClosed(AppendHandover(nil, HandoverClosed), 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHandover(b)
		if err != nil {
			return
		}
		again := AppendHandover(nil, HandoverOpened)
		for _, r := range h.Opened {
			again = AppendRecord(again, &r)
			NewAdopted(Terms{Size: r.Size, Block: r.Block, Window: r.Window}, r.Acked, r.Met)
		}
		if h2, err := ParseHandover(again); err != nil || !reflect.DeepEqual(h2.Opened, h.Opened) {
			t.Fatalf("%x: %+v, then %+v, %v", b, h.Opened, h2.Opened, err)
		}
	})
}
