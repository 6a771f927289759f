// Command tftpbench measures everboot's TFTP and HTTP beside other servers, with the same clients and the same files, in the lab.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"

	"everboot/internal/lab"
)

const (
	serverAddress = "198.18.0.2"
	fileSize      = 4 << 20
)

func main() {
	if what := os.Getenv(envServe); what != "" {
		if err := serve(what); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(lab.Main(run))
}

func run() int {
	only := flag.String("peers", strings.Join(peers, ","), "TFTP servers to measure")
	parts := flag.String("parts", "throughput,unpinned,loss,http,httpmove,moves", "what to measure; throughput keeps server and clients on processors of their own, unpinned does not")
	rows := flag.String("rows", "", "measure the throughput of those loads only whose names match this, such as '^1 client$'")
	flag.IntVar(&rounds, "rounds", rounds, "how often each is measured; the servers take turns, and the median counts")
	binary := flag.String("binary", "bin/everboot", "the appliance")
	flag.Parse()
	which, err := regexp.Compile(*rows)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tftpbench:", err)
		return 2
	}
	list := strings.Split(*only, ",")
	for _, part := range strings.Split(*parts, ",") {
		var err error
		switch part {
		case "throughput":
			err = throughput(list, which, true)
		case "unpinned":
			err = throughput(list, which, false)
		case "loss":
			err = loss(list)
		case "http":
			err = httpRows()
		case "httpmove":
			err = httpMoves(*binary)
		case "moves":
			err = moves(*binary, list)
		default:
			err = fmt.Errorf("there is no part %q", part)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "tftpbench:", err)
			return 1
		}
	}
	return 0
}
