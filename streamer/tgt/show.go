package tgt

import (
	"bufio"
	"strconv"
	"strings"

	"everboot/streamer"
)

// parsePortals reads `tgtadm --mode portal --op show`: lines such as "Portal: 127.0.0.1:3260,1".
func parsePortals(out string) []string {
	var portals []string
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "Portal: "); ok {
			address, _, _ := strings.Cut(rest, ",")
			portals = append(portals, address)
		}
	}
	return portals
}

// parseSessions reads `tgtadm --lld iscsi --mode target --op show`: a tree that is told by its words, not its indentation.
func parseSessions(out string) []streamer.EngineSession {
	var sessions []streamer.EngineSession
	var s streamer.EngineSession
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		word, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), ": ")
		if !ok {
			continue
		}
		switch word {
		case "I_T nexus":
			s = streamer.EngineSession{Target: s.Target, Session: number(value)}
		case "Initiator":
			s.Initiator, _, _ = strings.Cut(value, " alias: ")
		case "Connection":
			s.Connection = number(value)
		case "IP Address":
			s.Remote = value
			sessions = append(sessions, s)
		default:
			if strings.HasPrefix(word, "Target ") {
				s = streamer.EngineSession{Target: value}
			}
		}
	}
	return sessions
}

// number returns -1, which tgtd has no session of, for what is none.
func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}
