package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"everboot/internal/lab"
)

const clients = 20000

// exchanges is what perfdhcp says of a run.
type exchanges struct {
	rate  float64       // 4-way exchanges a second
	loss  [2]float64    // percent: of DISCOVERs, of REQUESTs
	delay [2]float64    // average milliseconds
	cpu   time.Duration // of all servers, an exchange
}

// lost is the greater of the two losses.
func (e exchanges) lost() float64 { return max(e.loss[0], e.loss[1]) }

var (
	donePattern  = regexp.MustCompile(`received packets: ([\d.]+)`)
	lossPattern  = regexp.MustCompile(`drops ratio: ([\d.]+)`)
	delayPattern = regexp.MustCompile(`avg delay: ([\d.]+) ms`)
)

// firstClient returns the MAC address of a run's first client; each of the others has the next. A run of perfdhcp counts its transactions and its clients from the same
// numbers on, whatever its seed: from the same first client it would repeat what an earlier run asked, which a server may take for a client that got no answer.
func (s *site) firstClient() string {
	s.runs++
	return fmt.Sprintf("00:0c:01:02:03:%02x", s.runs)
}

// perfdhcp offers a rate of exchanges of so many clients for some seconds.
func (s *site) perfdhcp(ctx context.Context, rate, clients, seconds int) (e exchanges, err error) {
	// Its exit code tells of single lost answers, too.
	before := s.busy()
	// Before everybody else: what is measured is how much the servers take, not how well a client gets along that gets no processor.
	out, runErr := s.c.Run(ctx, "nice", "-n", "-10", "perfdhcp", "-4", "-B", "-r", strconv.Itoa(rate), "-R", strconv.Itoa(clients), "-p", strconv.Itoa(seconds),
		"-W", "1000000", "-b", "mac="+s.firstClient(), "-l", "eth0")
	number := func(p *regexp.Regexp, text string) float64 {
		m := p.FindStringSubmatch(text)
		if m == nil {
			err = fmt.Errorf("perfdhcp says nothing of %s: %w: %s", p, runErr, text)
			return 0
		}
		f, _ := strconv.ParseFloat(m[1], 64)
		return f
	}
	parts := strings.SplitN(out, "***Statistics for:", 3)
	if len(parts) != 3 {
		return e, fmt.Errorf("perfdhcp: %w: %s", errors.Join(runErr, errors.New("no statistics")), out)
	}
	cpu := s.busy() - before
	// Its own rate counts the second in which it waits for the last answers.
	e.rate = number(donePattern, parts[2]) / float64(seconds)
	for i := range 2 {
		e.loss[i], e.delay[i] = number(lossPattern, parts[i+1]), number(delayPattern, parts[i+1])
	}
	if e.rate > 0 {
		e.cpu = cpu / time.Duration(e.rate*float64(seconds))
	}
	return e, err
}

// busy returns the processor time that the servers' processes have used.
func (s *site) busy() (sum time.Duration) {
	const perTick = 10 * time.Millisecond // of USER_HZ
	for _, h := range []*lab.Host{s.a, s.b} {
		for _, pid := range h.PIDs() {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil {
				continue // it has just ended
			}
			_, after, _ := strings.Cut(string(stat), ") ")
			if f := strings.Fields(after); len(f) > 12 {
				user, _ := strconv.Atoi(f[11])
				kernel, _ := strconv.Atoi(f[12])
				sum += time.Duration(user+kernel) * perTick
			}
		}
	}
	return sum
}

// rates offers each subject rising rates until it loses 1 % or more.
func (b *bench) rates(ctx context.Context) error {
	fmt.Printf("\nperfdhcp, %d clients, %d s a run; each lease in a file before its ACK (everboot: with fdatasync, and told to the second node)\n", clients, b.seconds)
	b.row("SERVER", "OFFERED/s", "DONE/s", "LOST %", "AVG DELAY ms (offer, ack)", "CPU µs AN EXCHANGE")
	best, errs := make(map[string]int), []error(nil)
	for _, sub := range subjects {
		if !strings.HasPrefix(sub.name, b.only) {
			continue
		}
		err := with(func(s *site) error {
			if err := sub.start(s); err != nil {
				return err
			}
			// Once without counting: the pool is new, caches are cold.
			if _, err := s.perfdhcp(ctx, sub.rates[0], clients, 2); err != nil {
				return err
			}
			rates := sub.rates
			if b.rate > 0 {
				rates = []int{b.rate}
			}
			for _, rate := range rates {
				e, err := s.perfdhcp(ctx, rate, clients, b.seconds)
				if err != nil {
					return err
				}
				if b.rate > 0 {
					s.whereLost(ctx)
				}
				b.row(sub.name, rate, fmt.Sprintf("%.0f", e.rate), fmt.Sprintf("%.2f", e.lost()), fmt.Sprintf("%.2f, %.2f", e.delay[0], e.delay[1]), e.cpu.Microseconds())
				if e.lost() < 1 {
					best[sub.name] = max(best[sub.name], int(e.rate))
				} else if e.lost() > 5 {
					break
				}
			}
			return nil
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", sub.name, err)) // the others are measured nevertheless
		}
		b.table.Flush()
	}
	ours := best[subjects[len(subjects)-1].name]
	for _, sub := range subjects[1 : len(subjects)-1] {
		if kea := best[sub.name]; kea > 0 && ours > 0 {
			fmt.Printf("everboot does %d/s under 1 %% loss, %s %d/s: %.2f times\n", ours, sub.name, kea, float64(ours)/float64(kea))
		}
	}
	return errors.Join(errs...)
}

// whereLost says what the hosts' sockets dropped, and what became of messages at the appliances.
func (s *site) whereLost(ctx context.Context) {
	for _, h := range []*lab.Host{s.a, s.b, s.c} {
		out, _ := h.Run(ctx, "sh", "-c", "grep ^Udp: /proc/net/snmp; curl -s http://127.0.0.1:8667/metrics | grep -v ^# | grep -e dhcp_answers -e dhcp_decisions -e dhcp_lease -e messages_total; grep -h 'DHCP peer' "+s.Dir()+"/"+h.Name()+"-*.log")
		fmt.Printf("%s:\n%s\n", h.Name(), out)
	}
}

// settle is how long a run goes on after the last client started.
const settle = 12 * time.Second
