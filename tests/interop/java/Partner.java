// SPDX-License-Identifier: Apache-2.0
import io.opentdf.platform.sdk.Config;
import io.opentdf.platform.sdk.SDK;
import io.opentdf.platform.sdk.SDKBuilder;
import io.opentdf.platform.sdk.TDF;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.URI;
import java.nio.channels.SeekableByteChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;

/** The Java SDK as a test partner: Partner enc|dec URL ID SECRET-FILE CA-DIR|- ATTRIBUTE|- SEGMENT|0 IN OUT */
public class Partner {
	public static void main(String[] a) throws Exception {
		try {
			run(a);
		} catch (Throwable e) {
			for (Throwable t = e; t != null; t = t.getCause())
				System.err.println(t);
			System.exit(1);
		}
		System.exit(0); // its threads would go on
	}

	static void run(String[] a) throws Exception {
		URI url = URI.create(a[1]);
		SDKBuilder b = SDKBuilder.newBuilder().platformEndpoint(url.getHost() + ":" + url.getPort())
			.clientSecret(a[2], Files.readString(Path.of(a[3])).trim()).useInsecurePlaintextConnection(url.getScheme().equals("http"));
		if (!a[4].equals("-"))
			b = b.sslFactoryFromDirectory(a[4]);
		SDK sdk = b.build();
		if (a[0].equals("enc")) {
			Config.KASInfo kas = new Config.KASInfo();
			List<Consumer<Config.TDFConfig>> o = new ArrayList<>();
			kas.URL = a[1];
			o.add(Config.withKasInformation(kas));
			o.add(Config.withAutoconfigure(false));
			if (!a[5].equals("-"))
				o.add(Config.withDataAttributes(a[5]));
			if (!a[6].equals("0"))
				o.add(Config.withSegmentSize(Integer.parseInt(a[6])));
			@SuppressWarnings("unchecked")
			Consumer<Config.TDFConfig>[] options = o.toArray(new Consumer[0]);
			try (InputStream in = Files.newInputStream(Path.of(a[7])); OutputStream out = new FileOutputStream(a[8])) {
				new TDF().createTDF(in, out, Config.newTDFConfig(options), sdk.getServices().kas(), sdk.getServices().attributes());
			}
		} else {
			try (SeekableByteChannel in = Files.newByteChannel(Path.of(a[7])); OutputStream out = new FileOutputStream(a[8])) {
				new TDF().loadTDF(in, sdk.getServices().kas()).readPayload(out);
			}
		}
	}
}
