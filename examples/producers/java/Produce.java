// Publishes posts: java -cp 'LIBS/*' Produce.java BROKERS TOPIC SCHEMA < posts.jsonl
// Each line is a post.v1; it is sent as it stands, with its id as key, so that edits of a post stay in order, and with a
// W3C traceparent; a line that does not fit the schema is told and not sent.

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.*;
import com.networknt.schema.*;
import java.io.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.ByteArraySerializer;

import static java.nio.charset.StandardCharsets.UTF_8;

public class Produce {
    static final AtomicInteger taken = new AtomicInteger(), faults = new AtomicInteger();
    static void tell(String what, Exception fault) {
        System.err.println(what + ": " + fault.getMessage());
        faults.incrementAndGet();
    }

    // A new trace. Where a request is being traced, hand on its own context: OpenTelemetry's TextMapPropagator.
    static String traceparent() {
        byte[] ids = new byte[24];
        new java.security.SecureRandom().nextBytes(ids);
        String hex = HexFormat.of().formatHex(ids);
        return "00-" + hex.substring(0, 32) + "-" + hex.substring(32) + "-01";
    }

    public static void main(String[] arguments) throws Exception {
        var post = JsonSchemaFactory.getInstance(SpecVersion.VersionFlag.V202012).getSchema(Files.readString(Path.of(arguments[2])));
        var json = new ObjectMapper();
        // Idempotent by default: what is sent again after a lost answer is stored once.
        Map<String, Object> options = Map.of("bootstrap.servers", arguments[0], "linger.ms", 20);
        try (var producer = new KafkaProducer<>(options, new ByteArraySerializer(), new ByteArraySerializer());
                var lines = new BufferedReader(new InputStreamReader(System.in, UTF_8))) {
            String line;
            for (int number = 1; (line = lines.readLine()) != null; number++) {
                JsonNode value;
                try {
                    var problems = post.validate(value = json.readTree(line));
                    if (!problems.isEmpty()) throw new IllegalArgumentException(problems.toString());
                } catch (JsonProcessingException | IllegalArgumentException fault) {
                    tell("line " + number, fault);
                    continue;
                }
                var record = new ProducerRecord<>(arguments[1], value.get("id").asText().getBytes(UTF_8), line.getBytes(UTF_8));
                record.headers().add("traceparent", traceparent().getBytes(UTF_8));
                producer.send(record, (place, fault) -> {
                    if (fault == null) taken.incrementAndGet(); else tell("not taken", fault);
                });
            }
        }
        System.out.println("produced " + taken);
        System.exit(faults.get() == 0 ? 0 : 1);
    }
}
