package vrrp

import (
	"regexp"
	"testing"
)

// TestCausesAreWords: a metric's label is a word, which stays when its sentence is put better; people read the sentence.
func TestCausesAreWords(t *testing.T) {
	word, causes := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`), 0
	for c, text := range causeTexts {
		if causes++; !word.MatchString(string(c)) || text == "" {
			t.Errorf("%q: %q", c, text)
		}
	}
	for _, c := range []Cause{
		Started, OwnsAddresses, Silence, Resigned, Outranked, HandedOver, Withdrawn, Overslept, HoldFailed, Robbed, Stopped,
	} {
		if causes--; c.Text() == "" {
			t.Errorf("%s has no text", c)
		}
	}
	if causes != 0 {
		t.Errorf("%d texts belong to no cause", causes)
	}
}
