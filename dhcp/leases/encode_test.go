package leases

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestTheLongestTexts: an identifier fills its length byte (RFC 6842), and the file must be readable after.
func TestTheLongestTexts(t *testing.T) {
	for _, n := range []int{0, 254, 255} {
		want := state(1, Bound, 0, time.Hour, 300)
		want.Client, want.Name = Client(strings.Repeat("\xff", n)), strings.Repeat("n", n)
		got, err := decode(encode(nil, want))
		got.Start, got.Expires = got.Start.UTC(), got.Expires.UTC()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%d bytes: read back %+v, %v", n, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	l := state(1, Bound, 0, time.Hour, 300)
	f.Add(encode(nil, l))
	l.Client, l.Name = Client(strings.Repeat("c", 255)), strings.Repeat("n", 255)
	f.Add(encode(nil, l))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(encode(nil, l))
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("%+v became %+v, %v", l, again, err)
		}
	})
}
