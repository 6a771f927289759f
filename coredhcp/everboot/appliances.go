package everboot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"everboot/site"
)

const (
	// eachPatience is for how long one appliance is asked before the next one.
	eachPatience = 300 * time.Millisecond
	maxAnswer    = 64 << 10
)

// appliances asks the site's appliances for the decision.
type appliances struct {
	urls   []string
	token  string
	client *http.Client
	first  atomic.Uint32 // who answered last is asked first
}

func newAppliances(urls []string, token string) *appliances {
	// No proxy of the environment: the token is for the site's appliances only.
	return &appliances{urls: urls, token: token, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce, IdleConnTimeout: time.Minute}}}
}

func (a *appliances) decide(ctx context.Context, q site.BootRequest) (site.Offer, site.Reason, error) {
	first := a.first.Load()
	var errs []error
	for i := range a.urls {
		n := (int(first) + i) % len(a.urls)
		offer, reason, err := a.ask(ctx, a.urls[n], q)
		if err == nil {
			a.first.Store(uint32(n))
			return offer, reason, nil
		}
		errs = append(errs, err)
	}
	return site.Offer{}, "", errors.Join(errs...)
}

func (a *appliances) ask(ctx context.Context, server string, q site.BootRequest) (site.Offer, site.Reason, error) {
	ctx, cancel := context.WithTimeout(ctx, eachPatience)
	defer cancel()
	query := url.Values{"mac": {q.MAC.String()}, "client": {string(q.Client)}, "arch": {strconv.Itoa(int(q.Arch))}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/api/v1/offer?"+query.Encode(), nil)
	if err != nil {
		return site.Offer{}, "", err
	}
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	response, err := a.client.Do(r)
	if err != nil {
		return site.Offer{}, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return site.Offer{}, "", fmt.Errorf("reading the answer of %s: %w", server, err)
	}
	if response.StatusCode != http.StatusOK {
		return site.Offer{}, "", fmt.Errorf("%s answers %s: %s", server, response.Status, text[:min(len(text), 200)])
	}
	var answer struct {
		Offer  site.Offer  `json:"offer"`
		Reason site.Reason `json:"reason"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return site.Offer{}, "", fmt.Errorf("reading the answer of %s: %w", server, err)
	}
	return answer.Offer, answer.Reason, nil
}
