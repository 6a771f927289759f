package image

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"everboot/site"
)

// runs returns what iPXE would echo of a slot: it begins in the first line, and looks for labels from there. It stops at the second echo, as the programs of these
// tests go on for ever.
func runs(t *testing.T, slot []byte) string {
	t.Helper()
	lines := strings.Split(string(slot), "\n")
	if lines[0] != "#!ipxe" {
		t.Fatalf("it is no script: %.20q", slot)
	}
	var said []string
	for i, steps := 1, 0; i < len(lines) && len(said) < 2 && steps < 10_000; i, steps = i+1, steps+1 {
		word, rest, _ := strings.Cut(lines[i], " ")
		switch {
		case word == "echo":
			said = append(said, rest)
		case word == "exit":
			return strings.Join(said, " ")
		case word == "goto":
			rest, _, _ = strings.Cut(rest, " ")
			for i = 0; i < len(lines) && lines[i] != ":"+rest; i++ {
			}
		case word != "" && word[0] != '#' && word[0] != ':':
			t.Fatalf("line %d is no command: %q", i, lines[i])
		}
	}
	return strings.Join(said, " ")
}

// dying is a disk whose power fails after so many sectors: what was written of the last write is there up to there.
type dying struct {
	*memory
	left int
}

var errPower = errors.New("the power has failed")

func (d *dying) WriteAt(b []byte, at int64) (int, error) {
	n := min(len(b), d.left*sectorSize)
	d.left -= (len(b) + sectorSize - 1) / sectorSize
	if _, err := d.memory.WriteAt(b[:n], at); err != nil {
		return 0, err
	}
	if n < len(b) {
		return n, errPower
	}
	return n, nil
}

// TestUpdateMediumSurvivesPowerLoss cuts the power after each sector of an update, and of the update after that: each of the two scripts of the medium is the old
// one or the new one, the medium is still one, and the next update makes it whole.
func TestUpdateMediumSurvivesPowerLoss(t *testing.T) {
	before := newMedium(t, MediumConfig{Program: testProgram, Loaders: fakeLoaders()})
	slots, err := findSlots(&memory{data: before}, MediumSize)
	if err != nil || len(slots) != 2 {
		t.Fatal(slots, err)
	}
	const writes = 2 * RenewalSize / sectorSize // of two slots
	for from, to := range map[*Program]Program{&testProgram: otherProgram, &otherProgram: testProgram} {
		if _, err := UpdateMedium(&memory{data: before}, MediumSize, *from); err != nil {
			t.Fatal(err)
		}
		for n := range writes + 1 {
			d := &dying{&memory{data: bytes.Clone(before)}, n}
			if _, err := UpdateMedium(d, MediumSize, to); (err == nil) != (n == writes) || err != nil && !errors.Is(err, errPower) {
				t.Fatalf("after %d sectors: %v", n, err)
			}
			for i, at := range slots {
				said, done := runs(t, d.data[at:at+slotSize]), n >= (i+1)*writes/2
				if want := map[bool]string{false: "here here", true: "there there"}[done == (to == otherProgram)]; said != want {
					t.Errorf("after %d sectors slot %d says %q, want %q", n, i, said, want)
				}
			}
			if changed, err := UpdateMedium(d.memory, MediumSize, to); err != nil || changed != (n < writes) {
				t.Errorf("after %d sectors, once more: %v, %v", n, changed, err)
			}
			for _, at := range slots {
				copy(d.data[at:at+slotSize], before[at:])
			}
			if !bytes.Equal(d.data, before) {
				t.Fatal("something else was changed")
			}
		}
	}
	if _, err := UpdateMedium(&memory{data: make([]byte, 1<<20)}, 1<<20, otherProgram); !errors.Is(err, errNoMedium) {
		t.Errorf("an empty disk: %v", err)
	}
}

// forgetful is a disk that takes what is written, and does not keep it.
type forgetful struct{ *memory }

func (forgetful) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

func TestUpdateMediumReadsWhatItWrote(t *testing.T) {
	d := forgetful{&memory{data: newMedium(t, MediumConfig{Program: testProgram, Loaders: fakeLoaders()})}}
	if _, err := UpdateMedium(d, MediumSize, otherProgram); err == nil || !strings.Contains(err.Error(), "does not keep") {
		t.Error(err)
	}
}

// TestRenew: a target is told what to write, into the bank that it does not use, until it has it.
func TestRenew(t *testing.T) {
	slot, err := testProgram.slot()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{bankB, bankA} {
		program := map[string]Program{bankB: otherProgram, bankA: testProgram}[want]
		has := stateOf(slot)
		text, err := program.Renew(has.bank, has.digest(), has.about())
		if err != nil || len(text) != RenewalSize {
			t.Fatalf("%d bytes, %v", len(text), err)
		}
		copy(slot[bankAt(want):], text[sectorSize:])
		copy(slot, text[:sectorSize])
		has = stateOf(slot)
		if text, err := program.Renew(has.bank, has.digest(), has.about()); text != nil || err != nil || has.bank != want {
			t.Errorf("bank %s, %d bytes more, %v", has.bank, len(text), err)
		}
		relabelled := program
		relabelled.About = "&version=9"
		if text, err := relabelled.Renew(has.bank, has.digest(), has.about()); text == nil || err != nil {
			t.Errorf("another version of the same script: %d bytes, %v", len(text), err)
		}
	}
	slot[bankAt(bankA)+20]++
	if got := stateOf(slot); got.headline != "" {
		t.Errorf("a damaged bank is %+v", got)
	}
	if _, err := testProgram.Renew("c", "", ""); err == nil {
		t.Error("there is a bank c")
	}
}

func (s slotState) digest() string {
	return s.headline[len("bank=a&digest=") : len("bank=a&digest=")+64]
}
func (s slotState) about() string { return s.headline[len("bank=a&digest=")+64:] }

func TestProgramThatDoesNotFitIsRefused(t *testing.T) {
	for want, p := range map[string]Program{
		"does not begin with #!ipxe":  {Script: "echo"},
		"name fewer login servers":    {Script: scriptIs + strings.Repeat("x", bankSize)},
		"was made for does not fit":   {Script: scriptIs, About: "&site=" + strings.Repeat("x", sectorSize)},
		`does not fit: "&a=\nreboot"`: {Script: scriptIs, About: "&a=\nreboot"},
	} {
		if _, err := p.slot(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	b := site.Bootstrap{
		Version: 999_999, Site: "berlin", Key: strings.Repeat("k", 64), Collection: strings.Repeat("c", 63), MAC: site.MAC{2}, VLAN: 4094,
		Address: netip.MustParsePrefix("198.18.100.100/24"), Gateway: netip.MustParseAddr("198.18.100.254"), DNS: netip.MustParseAddr("198.18.100.254"),
	}
	for name, hosts := range map[string][]string{
		"many login servers":                       slices.Repeat([]string{"198.18.100.100:8080"}, 150),
		"as many with names as a rollout may have": slices.Repeat([]string{"https://" + strings.Repeat("n", 56)}, 32),
	} {
		b.Hosts = hosts
		if _, err := (Program{Script: b.Script(), About: b.About()}).slot(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzStateOf: what stands on a stick of anybody's is read without harm.
func FuzzStateOf(f *testing.F) {
	slot, err := testProgram.slot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("# bank=b&digest="), uint16(100))
	f.Fuzz(func(t *testing.T, patch []byte, at uint16) {
		s := bytes.Clone(slot)
		copy(s[int(at)%slotSize:], patch)
		if got := stateOf(s); got.bank != bankA && got.bank != bankB {
			t.Errorf("bank %q of %s", got.bank, fmt.Sprintf("%.600q", s))
		}
	})
}
