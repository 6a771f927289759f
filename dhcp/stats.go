package dhcp

import (
	"maps"

	"everboot/dhcp/pair"
	"everboot/site"
)

// The names of the metrics that are made of Stats.
const (
	MetricMessages     = "everboot_dhcp_messages_total"      // label message: discover, request, …
	MetricAnswers      = "everboot_dhcp_answers_total"       // label answer: offer, ack, nak
	MetricDecisions    = "everboot_dhcp_decisions_total"     // label reason: a Reason
	MetricBoot         = "everboot_dhcp_boot_total"          // label reason: a site.Reason
	MetricCommits      = "everboot_dhcp_lease_commits_total" // writes to the lease file
	MetricCommitted    = "everboot_dhcp_leases_written_total"
	MetricCommitErrors = "everboot_dhcp_lease_commit_errors_total"
	MetricSendErrors   = "everboot_dhcp_send_errors_total"
	MetricIgnored      = "everboot_dhcp_proxy_ignored_total"
	MetricForeign      = "everboot_dhcp_foreign_server_last_seconds" // label server: its address
	MetricPeer         = "everboot_dhcp_peer_in_touch"               // label peer: its address
	MetricLearned      = "everboot_dhcp_leases_learned_total"        // from peers
	MetricRecalled     = "everboot_dhcp_leases_recalled_total"       // from what was written down elsewhere
	MetricClashes      = "everboot_dhcp_lease_clashes_total"
	MetricPeerDrops    = "everboot_dhcp_peer_messages_dropped_total" // label reason
)

// Stats are counters since the start.
type Stats struct {
	Messages     map[string]uint64      `json:"messages"`
	Answers      map[string]uint64      `json:"answers"`
	Reasons      map[Reason]uint64      `json:"reasons"`
	Boot         map[site.Reason]uint64 `json:"boot"`      // of answers that could have boot options
	Commits      uint64                 `json:"commits"`   // writes to the lease file
	Committed    uint64                 `json:"committed"` // leases in them
	CommitErrors uint64                 `json:"commit_errors"`
	SendErrors   uint64                 `json:"send_errors"`
	Ignored      uint64                 `json:"ignored"`    // proxyDHCP offers that a firmware took no notice of
	Learned      uint64                 `json:"learned"`    // leases that peers told
	Recalled     uint64                 `json:"recalled"`   // leases that were known from what was written down elsewhere alone
	Clashes      uint64                 `json:"clashes"`    // addresses that two clients were given
	PeerDrops    map[pair.Drop]uint64   `json:"peer_drops"` // messages of peers that were dropped
}

func newStats() Stats {
	return Stats{
		Messages: make(map[string]uint64), Answers: make(map[string]uint64),
		Reasons: make(map[Reason]uint64), Boot: make(map[site.Reason]uint64), PeerDrops: make(map[pair.Drop]uint64),
	}
}

func (s *Stats) count(d Decision) {
	s.Messages[d.Message]++
	s.Reasons[d.Reason]++
	if d.Answer != "" {
		s.Answers[d.Answer]++
	}
	if d.Boot != "" {
		s.Boot[d.Boot]++
	}
}

func (s *Stats) clone() Stats {
	c := *s
	c.Messages, c.Answers = maps.Clone(s.Messages), maps.Clone(s.Answers)
	c.Reasons, c.Boot, c.PeerDrops = maps.Clone(s.Reasons), maps.Clone(s.Boot), maps.Clone(s.PeerDrops)
	return c
}
