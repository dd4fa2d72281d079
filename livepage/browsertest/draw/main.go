// Command draw takes a picture of a page: draw <address> <file.png> <width> <height> [dark] [full]
package main

import (
	"log"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/sqllease/sqllease/livepage/browsertest/browser"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 5 {
		log.Fatal("draw <address> <file.png> <width> <height> [dark] [full]")
	}
	width, _ := strconv.ParseInt(os.Args[3], 10, 64)
	height, _ := strconv.ParseInt(os.Args[4], 10, 64)
	ctx, cancel, err := browser.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer cancel()
	var picture []byte
	shoot := chromedp.CaptureScreenshot(&picture)
	if slices.Contains(os.Args, "full") {
		shoot = chromedp.FullScreenshot(&picture, 100)
	}
	err = chromedp.Run(ctx, browser.Look(width, height, slices.Contains(os.Args, "dark")), chromedp.Navigate(os.Args[1]),
		chromedp.WaitVisible(".sentence"), chromedp.Sleep(1500*time.Millisecond), shoot)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(os.Args[2], picture, 0o644); err != nil { //nolint:gosec // a picture
		log.Fatal(err)
	}
}
