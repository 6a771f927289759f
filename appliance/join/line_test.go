package join

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func aLine() Line {
	return newLine(netip.MustParseAddrPort("198.18.0.2:8668"), []byte("a certificate"))
}

// TestLineSurvivesPaper: what is printed is read again, alone, in its command, with a line feed; and no letter of it can be wrong.
func TestLineSurvivesPaper(t *testing.T) {
	want := aLine()
	word := want.String()
	for _, text := range []string{word, "everboot join " + word + "\n", " " + word + "\r\n"} {
		if got, err := ParseLine(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for i := range word {
		other := "A"
		if word[i] == 'A' {
			other = "B"
		}
		if _, err := ParseLine(word[:i] + other + word[i+1:]); !errors.Is(err, ErrLine) {
			t.Errorf("letter %d wrong: %v", i, err)
		}
	}
	for _, text := range []string{"", "eb1.", word[:len(word)-1], word + "A", strings.ToUpper(word), "everboot join"} {
		if _, err := ParseLine(text); !errors.Is(err, ErrLine) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestTokensDiffer: a line of yesterday opens nothing today.
func TestTokensDiffer(t *testing.T) {
	if a, b := aLine(), aLine(); a.Token == b.Token || a.Fingerprint != b.Fingerprint {
		t.Errorf("%v and %v", a, b)
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add(aLine().String())
	f.Add("eb1.AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLine(text)
		if err != nil {
			return
		}
		if again, err := ParseLine(l.String()); err != nil || again != l {
			t.Errorf("%q: %v, then %v, %v", text, l, again, err)
		}
	})
}
