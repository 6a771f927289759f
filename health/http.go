package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// Dial opens a connection, as net.Dialer's DialContext does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// HTTP returns a probe that gets a page over a new connection each time, as a booting target does. A nil dial means a net.Dialer.
func HTTP(url string, verify Verify, dial Dial) func(context.Context) error {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	client := &http.Client{
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a boot server has none
	}
	return func(ctx context.Context) error {
		if err := get(ctx, client, url, verify); err != nil {
			return fmt.Errorf("getting %s: %w", url, err)
		}
		return nil
	}
}

// isMissing returns a probe that fails when a server says that it has no such file. Whether it answers at all is another probe's matter.
func isMissing(url string) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusNotFound {
			return fmt.Errorf("there is no %s", url)
		}
		return nil
	}
}

func get(ctx context.Context, client *http.Client, url string, verify Verify) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxFetch+1))
	if err != nil {
		return err
	}
	if len(data) > maxFetch {
		return errors.New("larger than 16 MiB")
	}
	return verify(data)
}
