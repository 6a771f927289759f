package embedded

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"everboot/site"
)

var start1 = time.UnixMilli(1_000_000)

// said returns a state in which each of the lines was said a second after the one before: "put KEY NAME", "add KEY NAME" or
// "remove KEY".
func said(t *testing.T, lines ...string) *state {
	t.Helper()
	fixed, err := newStatic(site.Content{}, "berlin", "")
	if err != nil {
		t.Fatal(err)
	}
	s := &state{fixed: fixed, live: make(map[string]announced)}
	for i, line := range lines {
		var op, key, name string
		fmt.Sscan(line, &op, &key, &name)
		now := start1.Add(time.Duration(i) * time.Second)
		value := fmt.Appendf(nil, `{"mac":%q,"name":%q}`, key, name)
		switch op {
		case "put":
			err = s.put(now, site.KindDevice, key, value)
		case "add":
			err = s.add(site.KindDevice, key, value)
		default:
			err = s.remove(now, site.KindDevice, key)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func deviceNames(o objects) map[string]string {
	list := map[string]string{}
	for key, d := range o.Devices {
		list[key] = d.Name
	}
	return list
}

func TestTheLaterWordOfTwoAppliancesCounts(t *testing.T) {
	for name, c := range map[string]struct {
		a, b []string
		want map[string]string
	}{
		"one knows nothing":     {[]string{"put " + mac1 + " t1"}, nil, map[string]string{mac1: "t1"}},
		"each knows another":    {[]string{"put " + mac1 + " t1"}, []string{"put " + mac2 + " t2"}, map[string]string{mac1: "t1", mac2: "t2"}},
		"b spoke later":         {[]string{"put " + mac1 + " t1"}, []string{"put " + mac1 + " old", "put " + mac1 + " new"}, map[string]string{mac1: "new"}},
		"b took it away later":  {[]string{"put " + mac1 + " t1"}, []string{"put " + mac1 + " t1", "remove " + mac1}, map[string]string{}},
		"a put it again since":  {[]string{"put " + mac1 + " x", "remove " + mac1, "put " + mac1 + " again"}, []string{"put " + mac1 + " x", "remove " + mac1}, map[string]string{mac1: "again"}},
		"a added a stranger":    {[]string{"remove " + mac2, "add " + mac1 + " x"}, []string{"put " + mac1 + " t1"}, map[string]string{mac1: "t1"}},
		"it is there already":   {[]string{"put " + mac1 + " t1", "add " + mac1 + " x"}, nil, map[string]string{mac1: "t1"}},
		"a stranger comes back": {[]string{"put " + mac1 + " t1", "remove " + mac1, "add " + mac1 + " x"}, []string{"put " + mac1 + " t1"}, map[string]string{mac1: "x"}},
		"both at the same time": {[]string{"put " + mac1 + " x"}, []string{"put " + mac1 + " y"}, map[string]string{mac1: "y"}},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := said(t, c.a...).objects, said(t, c.b...).objects
			later := start1.Add(time.Minute)
			ab, _, _ := a.merge(later, b.entries())
			ba, _, _ := b.merge(later, a.entries())
			if got := deviceNames(ab); !reflect.DeepEqual(got, c.want) {
				t.Errorf("a, told by b, has %v, want %v", got, c.want)
			}
			if got := deviceNames(ba); !reflect.DeepEqual(got, c.want) {
				t.Errorf("b, told by a, has %v, want %v", got, c.want)
			}
			if _, changed, _ := ab.merge(later, ba.entries()); len(changed) > 0 {
				t.Errorf("told again, a changes %v", changed)
			}
		})
	}
}

// TestAllAppliancesComeToTheSame: whatever is said where, and in whatever order it is heard.
func TestAllAppliancesComeToTheSame(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		var nodes [3]*state
		var told []entry
		for i := range nodes {
			nodes[i] = said(t)
		}
		for range 30 {
			key, s := []string{mac1, mac2}[random.IntN(2)], nodes[random.IntN(3)]
			now := start1.Add(time.Duration(random.IntN(5)) * time.Millisecond) // clocks that disagree, and ties
			var err error
			if random.IntN(3) == 0 {
				err = s.remove(now, site.KindDevice, key)
			} else {
				err = s.put(now, site.KindDevice, key, fmt.Appendf(nil, `{"mac":%q,"name":"n%d"}`, key, random.IntN(3)))
			}
			if err != nil {
				t.Fatal(err)
			}
			told, s.untold = append(told, s.untold...), nil
		}
		var ends []map[string]string
		for _, s := range nodes {
			random.Shuffle(len(told), func(i, j int) { told[i], told[j] = told[j], told[i] })
			o := s.objects
			for _, e := range told {
				o, _, _ = o.merge(start1.Add(time.Minute), []entry{e})
			}
			ends = append(ends, deviceNames(o))
		}
		if !reflect.DeepEqual(ends[0], ends[1]) || !reflect.DeepEqual(ends[0], ends[2]) {
			t.Fatalf("seed %d: they end as %v", seed, ends)
		}
	}
}

func TestAStampFromTheFutureIsNotBelieved(t *testing.T) {
	a := said(t, "put "+mac1+" t1").objects
	e := a.entry(site.KindDevice, mac1)
	e.Stamp.At = start1.Add(2 * maxFuture).UnixMilli()
	e.Value = json.RawMessage(`{"mac":"` + mac1 + `","name":"evil"}`)
	o, changed, ahead := a.merge(start1, []entry{e})
	if len(changed) > 0 || len(ahead) != 1 {
		t.Errorf("believed: %v; named as from the future: %v", deviceNames(o), ahead)
	}
}

// TestAClockThatWasWrongOnceIsGotOver: what an appliance said while its clock was years ahead gives way to what is said with a right one, here or
// at another appliance.
func TestAClockThatWasWrongOnceIsGotOver(t *testing.T) {
	ahead := said(t)
	if err := ahead.put(start1.AddDate(3, 0, 0), site.KindDevice, mac1, []byte(`{"mac":"`+mac1+`","name":"old"}`)); err != nil {
		t.Fatal(err)
	}
	other := said(t, "put "+mac1+" t1").objects
	if o, _, _ := ahead.objects.merge(start1.Add(time.Minute), other.entries()); deviceNames(o)[mac1] != "t1" {
		t.Errorf("the one whose clock was wrong has %v", deviceNames(o))
	}
	if err := ahead.put(start1.Add(time.Minute), site.KindDevice, mac1, []byte(`{"mac":"`+mac1+`","name":"new"}`)); err != nil {
		t.Fatal(err)
	}
	if o, _, refused := other.merge(start1.Add(time.Minute), ahead.objects.entries()); deviceNames(o)[mac1] != "new" || len(refused) > 0 {
		t.Errorf("the other has %v, refuses %v", deviceNames(o), refused)
	}
}

// TestAnOlderEverbootTakesNothingAway: it tells on what it was told without the fields that it does not know, under the same stamp.
func TestAnOlderEverbootTakesNothingAway(t *testing.T) {
	full := said(t, "put "+mac1+" t1").objects
	older := full.entry(site.KindDevice, mac1)
	older.Value = json.RawMessage(`{"mac":"` + mac1 + `"}`)
	if o, changed, _ := full.merge(start1.Add(time.Minute), []entry{older}); len(changed) > 0 || deviceNames(o)[mac1] != "t1" {
		t.Errorf("it took away: %v, %v", changed, deviceNames(o))
	}
	newer := full.entry(site.KindDevice, mac1)
	newer.Value = json.RawMessage(strings.TrimSuffix(string(newer.Value), "}") + `,"colour":"red"}`)
	if _, changed, _ := full.merge(start1.Add(time.Minute), []entry{newer}); len(changed) > 0 {
		t.Errorf("what is not understood counts as a change, and would be written each time: %v", changed)
	}
}

// TestOneBadEntryDoesNotHideTheOthers: a newer everboot may allow what we refuse.
func TestOneBadEntryDoesNotHideTheOthers(t *testing.T) {
	good := said(t, "put "+mac1+" t1").objects.entry(site.KindDevice, mac1)
	bad := entry{Kind: site.KindVDisk, Key: "debian", Stamp: Stamp{At: 1}, Value: json.RawMessage(`{"name":"debian","affinity":"by moonlight"}`)}
	b, err := marshalEntries([]entry{bad, good})
	if err != nil {
		t.Fatal(err)
	}
	list, err := parseEntries(b)
	if len(list) != 1 || list[0].Key != mac1 || err == nil || !strings.Contains(err.Error(), "debian") {
		t.Errorf("read %v, %v", list, err)
	}
}

func TestWhatIsGoneIsForgottenInTheEnd(t *testing.T) {
	o := objects{Stamps: map[string]Stamp{"devices/" + mac1: {At: 1}}}
	for i := range maxGone + 10 {
		o.Stamps[fmt.Sprint("devices/gone", i)] = Stamp{At: int64(i), Gone: true}
	}
	o = o.forget()
	_, oldest := o.Stamps["devices/gone9"]
	_, newest := o.Stamps[fmt.Sprint("devices/gone", maxGone+9)]
	if len(o.Stamps) != maxGone+1 || oldest || !newest {
		t.Errorf("%d stamps are left; the oldest is there %t, the newest %t", len(o.Stamps), oldest, newest)
	}
}

func TestTwoRegistriesTellEachOther(t *testing.T) {
	dir := t.TempDir()
	b, changesB := start(t, Config{Dir: dir})
	a, changesA := start(t, Config{Tell: func(m []byte) { b.PeerChanged("a", m) }})
	go drain(changesA)
	if err := a.Put(t.Context(), site.KindDevice, mac1, []byte(`{"mac":"`+mac1+`","name":"t1"}`)); err != nil {
		t.Fatal(err)
	}
	for c := range changesB { // until it is there
		if len(c.content.Devices) == 1 {
			break
		}
	}
	stored, _, err := file{dir: dir}.load()
	if err != nil || stored.Devices[mac1].Name != "t1" {
		t.Errorf("on b's disk: %+v, %v", stored.Devices, err)
	}
	c, changesC := start(t, Config{})
	c.PeerChanged("b", b.PeerWhole()) // who comes later gets the whole
	for got := range changesC {
		if len(got.content.Devices) == 1 {
			break
		}
	}
	go drain(changesB)
	go drain(changesC)
}

func FuzzPeerEntries(f *testing.F) {
	whole, err := marshalEntries([]entry{
		{Kind: site.KindDevice, Key: mac1, Stamp: Stamp{At: 1}, Value: json.RawMessage(`{"mac":"` + mac1 + `"}`)},
		{Kind: site.KindVDisk, Key: "debian", Stamp: Stamp{At: 2, Gone: true}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(append([]byte{shareFormat}, `[{"kind":"streamer-states","key":"s1","value":"\"draining\""}]`...)) // not shared here
	f.Fuzz(func(t *testing.T, b []byte) {
		list, _ := parseEntries(b)
		o, changed, _ := objects{}.merge(start1, list)
		o = o.forget()
		again, err := marshalEntries(o.entries())
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseEntries(again); err != nil || len(back) > len(list) {
			t.Errorf("%q: what was taken cannot be told on: %v", b, err)
		}
		if slices.Contains(changed, "") || bytes.Equal(again, nil) {
			t.Errorf("%q: changed %q", b, changed)
		}
	})
}
